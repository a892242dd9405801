"""`--aggregation plain`: the same rounds and transport, with updates in clear, for comparison."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mphe.arithmetic.sampling import RandomSource
from mphe.errors import (
    DuplicateMessage,
    MalformedMessage,
    RoundAborted,
    UnexpectedSender,
)
from mphe.roles.attendance import Attendance
from mphe.roles.machine import Output, Send
from mphe.roles.rounds.aggregator import Abandoned, Accepted, Closed, Late, State, Summed
from mphe.scheme.encryptor import Payload
from mphe.wire.messages import Contribution, Join, Message, RoundEnd, RoundStart


class PlainEncryptor:
    """Drop-in for `mphe.roles.rounds.contributor.Encryptor` that hides nothing."""

    def encrypt(self, values: NDArray[Any], source: RandomSource) -> Payload:
        """Return an update, float32 (size,), in clear."""
        return Payload(b"", b"", values.astype("<f4").tobytes())


class PlainSetup:
    """Waits until every client has said that it is there."""

    def __init__(self, num_clients: int) -> None:
        """Expect clients 1..num_clients."""
        self._waiting = set(range(1, num_clients + 1))
        self.step = ("joining",)

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take a join without keys."""
        if not isinstance(message, Join):
            raise UnexpectedSender(sender, f"{type(message).__name__} is not expected now")
        return self.lost(sender)

    def lost(self, *peers: int) -> list[Output]:
        """Wait no longer for some clients."""
        self._waiting.difference_update(peers)
        return []

    def deadline_passed(self) -> list[Output]:
        """Start with whoever is there."""
        self._waiting.clear()
        return []

    def waiting_for(self) -> tuple[int, ...]:
        """Return who has not joined."""
        return tuple(sorted(self._waiting))


class PlainAggregator:
    """Drop-in for `mphe.roles.rounds.aggregator.Aggregator` that adds what it can read."""

    def __init__(self, size: int, num_clients: int, minimum: int) -> None:
        """Expect updates of `size` values, at least `minimum` of them a round."""
        self.state = State.IDLE
        self.round = 0
        self.members = set(range(1, num_clients + 1))
        self._size = size
        self._num_clients = num_clients
        self._minimum = minimum
        self._attendance = Attendance()
        self._contributors: list[int] = []
        self._total = np.zeros(size)

    def start_round(self, model: bytes, present: Iterable[int]) -> list[Output]:
        """Send the model to the clients that are present and expect their updates."""
        self.round += 1
        self.state = State.COLLECTING
        self._attendance.begin(present, self._minimum)
        self._contributors = []
        self._total = np.zeros(self._size)
        start = RoundStart(self.round, model)
        outputs: list[Output] = [Send(index, start) for index in self._there()]
        return outputs if self._attendance.expected else outputs + self._close()

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Add one update; RemoteProtocolError when it is wrong."""
        if isinstance(message, Join):
            return []
        if not isinstance(message, Contribution):
            raise UnexpectedSender(sender, f"{type(message).__name__} is not expected now")
        if message.round < self.round or self.state is not State.COLLECTING:
            if message.round == self.round and sender not in self._contributors:
                self._attendance.just_missed(sender)
            return [Late(sender)]
        if sender in self._contributors:
            raise DuplicateMessage(sender, f"it contributed to round {self.round} before")
        if sender not in self._attendance.present:
            raise UnexpectedSender(sender, f"it takes no part in round {self.round}")
        if message.round != self.round or len(message.body) != 4 * self._size:
            raise MalformedMessage(sender, "its update has the wrong round or length")
        update = np.frombuffer(message.body, "<f4")
        if not np.isfinite(update).all():
            raise MalformedMessage(sender, "its update holds numbers that are not finite")
        self._total += update
        self._contributors.append(sender)
        self._attendance.arrived(sender)
        accepted = Accepted(sender, message.note)
        return [accepted] if self._attendance.expected else [accepted, *self._close()]

    def lost(self, *peers: int) -> list[Output]:
        """Go on without some clients."""
        self._attendance.lost(peers)
        waits = self.state is State.COLLECTING and self._attendance.expected
        return [] if waits or self.state is State.IDLE else self._close()

    def deadline_passed(self) -> list[Output]:
        """End the round with the updates that are there."""
        if self.state is State.IDLE:
            return []
        self._attendance.deadline()
        return self._close()

    def _close(self) -> list[Output]:
        self.state = State.IDLE
        contributors = tuple(sorted(self._contributors))
        if len(contributors) < self._minimum:
            missing = set(range(1, self._num_clients + 1)) - set(contributors)
            reason = f"{len(contributors)} updates arrived, at least {self._minimum} are needed"
            error = RoundAborted(self.round, reason, missing)
            return [Abandoned(error, contributors, 0), *self._end(())]
        summed = Summed(self.round, contributors, self._total, 0)
        return [Closed(self.round, contributors), summed, *self._end(contributors)]

    def waiting_for(self) -> tuple[int, ...]:
        """Return whose update is still missing."""
        waits = self.state is State.COLLECTING
        return tuple(sorted(self._attendance.expected)) if waits else ()

    @property
    def step(self) -> tuple[object, ...]:
        """What changes whenever a new wait begins."""
        return self.state, self.round

    def _end(self, contributors: tuple[int, ...]) -> list[Output]:
        end = RoundEnd(self.round, contributors)
        return [Send(index, end) for index in self._there()]

    def _there(self) -> list[int]:
        return sorted(self._attendance.present)
