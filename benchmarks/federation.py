"""All parties of a session in one process, for measuring."""

from collections import deque
from functools import partial

import mphe
from mphe.roles.machine import Output, Send
from mphe.roles.rounds.aggregator import Aggregator
from mphe.roles.rounds.contributor import Contributor
from mphe.roles.rounds.decryptor import Decryptor
from mphe.roles.setup.common import SessionKeys


class Federation:
    """All parties, their key made; what is measured are the roles within them."""

    def __init__(self, plan: mphe.Plan) -> None:
        """Run the set-up."""
        self.plan = plan
        identities = {i: mphe.Identity.generate() for i in range(1, plan.session.num_clients + 1)}
        roster = {i: identity.public for i, identity in identities.items()}
        self.server = mphe.Server(plan.session, roster)
        self.clients = {i: mphe.Client(i, plan.session, identities[i], roster) for i in roster}
        self._mail = deque[tuple[int, int, bytes]]()
        for index, client in self.clients.items():
            self._post(index, client.start())
        while self._mail:
            sender, receiver, data = self._mail.popleft()
            take = self.clients[receiver].receive if receiver else partial(self._serve, sender)
            self._post(receiver, take(data))
        if self.server.aggregator is None:
            raise RuntimeError("the set-up did not finish")
        self.aggregator: Aggregator = self.server.aggregator

    def _serve(self, sender: int, data: bytes) -> mphe.Step:
        return self.server.receive(sender, data)

    def _post(self, sender: int, step: mphe.Step) -> None:
        self._mail.extend((sender, receiver, data) for receiver, data in step.mail)

    @property
    def contributors(self) -> dict[int, Contributor]:
        """Each client's part in the rounds."""
        return {i: client.contributor for i, client in self.clients.items() if client.contributor}

    @property
    def decryptors(self) -> dict[int, Decryptor]:
        """The part in decryption of those who hold a share."""
        return {i: client.decryptor for i, client in self.clients.items() if client.decryptor}

    @property
    def keys(self) -> dict[int, SessionKeys]:
        """Each client's keys."""
        return {i: client.setup.keys for i, client in self.clients.items() if client.setup.keys}


def sends(outputs: list[Output]) -> list[Send]:
    """Return what is to be delivered."""
    return [output for output in outputs if isinstance(output, Send)]
