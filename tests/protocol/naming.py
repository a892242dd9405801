"""The server's rules for culprits without cryptography: sums are right or wrong, as parties choose.

Everything but arithmetic is real: `Aggregator`, its draws, partitions, attempts, sit-outs and
evidence. Culprits know more than they can: the groups, before they contribute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mphe.arithmetic.ring import Integers
from mphe.arithmetic.sampling import RandomSource
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import Plan, make_plan
from mphe.roles.machine import Output, Send
from mphe.roles.rounds import aggregator as server
from mphe.roles.rounds import grouping
from mphe.roles.rounds.aggregator import Aggregator
from mphe.roles.rounds.outcomes import Excluded, Summed
from mphe.roles.rounds.proceedings import Wanted
from mphe.roles.setup.common import PublicSession
from mphe.scheme import partition
from mphe.wire.messages import Contribution, DecryptionRequest, DecryptionShare
from tests.support import seed_of, seeded

Clients = tuple[int, ...]


class Culprit:
    """Cheats as a contributor, as a decryptor, or both, when it pleases."""

    def cheats(self, group: Clients) -> bool:
        """Return whether its contribution to a group is wrong."""
        return False

    def spoils(self, group: Clients, request: DecryptionRequest) -> bool:
        """Return whether its decryption share of a group is wrong."""
        return False


@dataclass
class Tried:
    """The sum of a group in one round.

    Attributes:
        group: its contributors.
        wrong: the decryptors of each attempt in which it was wrong.
        right: those of the one in which it was right, if it ever was.
    """

    group: Clients
    wrong: list[Clients] = field(default_factory=list)
    right: Clients | None = None


@dataclass
class Story:
    """What happened in a session.

    Attributes:
        excluded: client → round.
        summed: rounds in which there was a sum of some group.
        rounds: that were run.
        tried: all sums of all rounds, in their order.
    """

    excluded: dict[int, int] = field(default_factory=dict)
    summed: list[int] = field(default_factory=list)
    rounds: int = 0
    tried: list[Tried] = field(default_factory=list)


class _Sum:
    """Knows of contributions only whether one of them is wrong."""

    def __init__(self, plan: Plan, crs_seed: bytes, blocks: object = map) -> None:
        self._plan = plan
        self._wrong = False
        self.ring = None

    def another(self) -> _Sum:
        return _Sum(self._plan, b"")

    def parse(self, message: Contribution) -> bool:
        return message.body == b"wrong"

    def add(self, wrong: bool) -> None:
        self._wrong |= wrong

    def merge(self, other: _Sum) -> None:
        self._wrong |= other._wrong

    def c1(self) -> bytes:
        return b""

    def recover(self, shares: list[list[bool]], contributors: int) -> np.ndarray | None:
        if self._wrong or any(spoilt for share in shares for spoilt in share):
            return None
        return np.zeros(self._plan.session.length, np.int64)


def _read_shares(
    _ring: object, _layout: object, share: bytes, _dropped: int, _asked: int
) -> list[bool]:
    return [bool(flag) for flag in share]


@contextmanager
def no_cryptography() -> Iterator[pytest.MonkeyPatch]:
    """Let the server add up what culprits say instead of ring elements."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(grouping, "RunningSum", _Sum)
        patched.setattr(server, "decryption", SimpleNamespace(read_shares=_read_shares))
        yield patched


@cache
def plan_of(**parameters: Any) -> Plan:
    """Return the plan of a session whose updates have one value."""
    return make_plan(SessionParameters(length=1, rounds=200, **parameters))


def play(
    plan: Plan, culprits: Mapping[int, Culprit], seed: int, rounds: int, after: int = 0
) -> Story:
    """Run so many rounds at most; everybody is always there.

    Once every culprit is excluded there are `after` more.
    """
    session = _Session(plan, culprits, seed)
    while session.story.rounds < rounds and set(culprits) - set(session.story.excluded):
        session.round()
    for _ in range(after):
        session.round()
    return session.story


class _Server(Aggregator):
    """Writes down under whom each sum was right or wrong."""

    def __init__(self, session: PublicSession, source: RandomSource) -> None:
        super().__init__(session, source=source)
        self.tried: dict[Clients, Tried] = {}

    def _judge_sum(self, wanted: Wanted, total: Integers | None) -> None:
        tried = self.tried.setdefault(wanted.contributors, Tried(wanted.contributors))
        if total is None:
            tried.wrong.append(self._now.active)
        else:
            tried.right = self._now.active
        super()._judge_sum(wanted, total)


class _Session:
    """A session whose key is made, and the clients of it."""

    def __init__(self, plan: Plan, culprits: Mapping[int, Culprit], seed: int) -> None:
        everybody = tuple(range(1, plan.session.num_clients + 1))
        nothing: Any = None
        public = PublicSession(
            plan=plan,
            transcript=seed_of(f"naming {seed}"),
            crs_seed=bytes(32),
            qualified=everybody,
            decryptors=everybody[: plan.session.decryptors],
            welcome=nothing,
            admitted=(),
            identities=nothing,
            key=nothing,
        )
        self._server = _Server(public, source=seeded(f"salts {seed}"))
        self._plan, self._culprits = plan, culprits
        self._random = np.random.default_rng(seed)
        self.story = Story()

    def round(self) -> None:
        """Run one round."""
        server, session = self._server, self._plan.session
        started = server.start_round(b"", set(server.members))
        there = [output.receiver for output in started if isinstance(output, Send)]
        runs = partition.runs(server.session.transcript, server._now.draw, session.num_clients)
        self._groups = partition.split(runs, there, session.min_contributors)
        self._random.shuffle(there)
        cheated = [self._cheats(client) for client in there]
        for client, cheats in zip(there, cheated, strict=True):
            body = b"wrong" if cheats else b""
            transcript = server.session.transcript
            message = Contribution(server.round, b"", b"", body, b"", transcript=transcript)
            self._take(server.receive(client, message))
        self.story.rounds += 1
        self.story.tried += server.tried.values()
        server.tried = {}

    def _cheats(self, client: int) -> bool:
        (group,) = (group for group in self._groups if client in group)
        return client in self._culprits and self._culprits[client].cheats(group)

    def _take(self, outputs: list[Output]) -> None:
        requests = {}
        for output in outputs:
            if isinstance(output, Send) and isinstance(output.message, DecryptionRequest):
                requests[output.receiver] = output.message
            elif isinstance(output, Excluded):
                self.story.excluded[output.client] = self._server.round
            elif isinstance(output, Summed):
                self.story.summed.append(output.round)
        for client, request in requests.items():
            self._take(self._server.receive(client, self._share(client, request)))

    def _share(self, client: int, request: DecryptionRequest) -> DecryptionShare:
        """Return a share whose bytes say which sums it spoils."""
        groups = [request.groups[place].contributors for place in request.asked]
        culprit = self._culprits.get(client)
        spoilt = [culprit is not None and culprit.spoils(group, request) for group in groups]
        flags = bytes(flag for flag in spoilt for _ in range(self._plan.threshold.blocks))
        transcript = self._server.session.transcript
        return DecryptionShare(request.round, request.attempt, flags, transcript)
