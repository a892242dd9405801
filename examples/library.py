"""Five clients and a server in one process: a sum of four vectors that nobody could read."""

from collections import deque

import numpy as np

import mphe

parameters = mphe.SessionParameters(num_clients=5, threshold=3, length=1000, rounds=10)
identities = {i: mphe.Identity.generate() for i in range(1, 6)}
roster = {i: identity.public for i, identity in identities.items()}
server = mphe.Server(parameters, roster)
clients = {i: mphe.Client(i, parameters, identities[i], roster) for i in roster}
mail: deque[tuple[int, int, bytes]] = deque()  # the network: sender, receiver, bytes


def carry_out(party: int, step: mphe.Step) -> None:
    """Post what a party wants to be sent, and do what its events ask for; the server is 0."""
    mail.extend((party, receiver, data) for receiver, data in step.mail)
    for event in step.events:
        if isinstance(event, mphe.TrainOn):
            carry_out(party, clients[party].contribute(event.round, np.full(1000, party)))
        elif isinstance(event, mphe.Summed):
            print("round", event.round, "sum of", event.contributors, "is", event.total[:3])


def deliver() -> None:
    """Deliver all mail, and what is sent in answer."""
    while mail:
        sender, receiver, data = mail.popleft()
        step = server.receive(sender, data) if receiver == 0 else clients[receiver].receive(data)
        carry_out(receiver, step)


for index, client in clients.items():
    carry_out(index, client.start())
deliver()  # the key is made
carry_out(0, server.start_round(b"model", present=[1, 2, 3, 4]))
deliver()
