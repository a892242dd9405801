"""A session of mphe.Client and mphe.Server without a network, for the tests of both."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from operator import methodcaller
from typing import Any

import numpy as np
import pytest

import mphe
from mphe.wire import codec
from mphe.wire.messages import Message

LENGTH = 50
SALTS = bytes(32)
"""What servers draw salts from, so that two of them draw the same."""
MODES: dict[str, dict[str, Any]] = {
    "hybrid": {"threshold": 3, "min_contributors": 3},
    "direct": {"threshold": 3, "encryption": "direct"},
    "committee": {"threshold": 2, "decryptors": 3},
    "not robust": {"threshold": 5, "robust": False},
    "direct, not robust": {"threshold": 5, "robust": False, "encryption": "direct"},
    "verified": {"threshold": 4, "verified": True},
    "groups": {"threshold": 3, "min_contributors": 2, "max_groups": 2},
    "verified, direct": {"threshold": 4, "verified": True, "encryption": "direct"},
}
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def receive(data: bytes, client: mphe.Client) -> mphe.Step:
    return client.receive(data)


def contribute(round: int, update: np.ndarray, client: mphe.Client) -> mphe.Step:
    return client.contribute(round, update)


def stage_of(server: mphe.Server) -> str:
    """Return what a server does, in one word."""
    return str((server.aggregator or server.setup).state.value)


class Session:
    """Five clients and a server, which may be made anew for every message.

    A server that is made anew goes on beside a witness that lives on: both say the same.
    """

    def __init__(self, mode: dict[str, Any], anew: bool, server_anew: bool = False) -> None:
        self.parameters = mphe.SessionParameters(num_clients=5, length=LENGTH, rounds=9, **mode)
        self.identities = {i: mphe.Identity.generate() for i in range(1, 6)}
        self.roster = {i: identity.public for i, identity in self.identities.items()}
        self.server = self._make_server()
        self.clients = {
            i: mphe.Client(i, self.parameters, self.identities[i], self.roster) for i in self.roster
        }
        self.witness = self._make_server() if server_anew else None
        self.states: dict[str, bytes] = {}
        self.anew = anew
        self.mail: deque[tuple[int, int, bytes]] = deque()
        self.events: list[tuple[int, mphe.Event]] = []
        self.updates: dict[int, np.ndarray] = {}

    def _make_server(self) -> mphe.Server:
        return mphe.Server(self.parameters, self.roster, source=mphe.RandomSource(SALTS))

    def act(self, index: int, call: Callable[[mphe.Client], mphe.Step]) -> None:
        if self.anew:
            state = self.clients[index].state
            self.clients[index] = mphe.Client.restore(state, self.identities[index])
            assert self.clients[index].state == state
        self.post(index, call(self.clients[index]))

    def serve(self, call: Callable[[mphe.Server], mphe.Step]) -> None:
        """Let the server act; send what the one says that is made from its state afterwards."""
        step, server, witness = call(self.server), self.server, self.witness
        if witness is not None:
            beside = call(witness)
            assert repr(step.events) == repr(beside.events)
            self.server = mphe.Server.restore(server.state, source=mphe.RandomSource(SALTS))
            assert self.server.state == server.state == witness.state
            assert self.server.outbox == step.mail == beside.mail
            assert self.server.waiting_for() == witness.waiting_for()
            assert self.server.members == witness.members
            self.states[stage_of(witness)] = server.state
            step = mphe.Step(self.server.outbox, step.events)
        self.post(mphe.SERVER, step)

    def lose(self, *clients: int) -> None:
        """Cut off clients, with what they sent and were sent."""
        self.cut(*clients)
        self.serve(methodcaller("lost", *clients))

    def cut(self, *clients: int) -> None:
        """Lose all mail of clients that is under way."""
        self.mail = deque(item for item in self.mail if not {*item[:2]} & {*clients})

    def post(self, sender: int, step: mphe.Step) -> None:
        self.mail.extend((sender, receiver, data) for receiver, data in step.mail)
        for event in step.events:
            self.events.append((sender, event))
            if isinstance(event, mphe.TrainOn) and sender in self.updates:
                update = self.updates[sender]
                self.act(sender, partial(contribute, event.round, update))

    def deliver(self, until: Callable[[int, int, Message], bool] = lambda *mail: False) -> None:
        """Deliver all mail, or until a message is the next one."""
        while self.mail:
            sender, receiver, data = self.mail[0]
            if until(sender, receiver, codec.decode(data, sender)):
                return
            self.mail.popleft()
            if receiver == mphe.SERVER:
                self.serve(methodcaller("receive", sender, data))
            else:
                self.act(receiver, partial(receive, data))

    def open(self) -> None:
        for index in self.clients:
            self.act(index, mphe.Client.start)
        self.deliver()

    def round(self, present: Iterable[int] = range(1, 6), seed: int = 0) -> Any:
        self.begin_round(present, seed)
        self.deliver()
        return self.events_of(mphe.SERVER, mphe.Summed)[-1]

    def begin_round(self, present: Iterable[int] = range(1, 6), seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.updates = {i: rng.integers(0, 1 << 16, LENGTH) for i in present}
        self.serve(methodcaller("start_round", b"model", present))

    def events_of(self, party: int, kind: type) -> list[Any]:
        return [event for who, event in self.events if who == party and isinstance(event, kind)]
