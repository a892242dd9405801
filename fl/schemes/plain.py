"""`--aggregation plain`: the same rounds and transport, with updates in clear, for comparison."""

from collections.abc import Iterable
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mphe.arithmetic.sampling import RandomSource
from mphe.errors import (
    DuplicateMessage,
    MalformedMessage,
    ParameterError,
    RoundAborted,
    UnexpectedSender,
)
from mphe.roles.attendance import Attendance
from mphe.roles.machine import Output, Send
from mphe.roles.rounds.aggregator import Abandoned, Accepted, Closed, Late, State, Summed
from mphe.scheme.encryptor import Payload
from mphe.update import NO_COUNTS, Counts, Mean, PublicRange, Vector, clip
from mphe.update.compression import Compression
from mphe.wire.messages import Contribution, Join, Message, RoundEnd, RoundStart

_NUM_COUNTS = 4


class PlainEncryptor:
    """Drop-in for `mphe.roles.rounds.contributor.Encryptor` that hides nothing."""

    def encrypt(self, values: NDArray[Any], source: RandomSource) -> Payload:
        """Return an update, float32 (size,), in clear."""
        return Payload(b"", b"", values.astype("<f4").tobytes())


class PlainCodec:
    """Updates as they are, in float32, with their counts behind them; sums decode to means."""

    def __init__(self, length: int, clip_norm: float, *, compression_rate: float = 1.0) -> None:
        self._length = length
        self._clip_norm = clip_norm
        self._compression = Compression(length, compression_rate)

    @property
    def payload_length(self) -> int:
        """Values of one contribution: what is sent of the update, and its counts."""
        return self._compression.length + _NUM_COUNTS

    def first_public(self) -> PublicRange:
        """Return a range that nothing is clipped to, since models go out with one."""
        return PublicRange(self._clip_norm)

    def next_public(self, public: PublicRange, mean: Mean) -> PublicRange:
        """Return the same range."""
        return public

    def encode(
        self,
        update: NDArray[Any],
        public: PublicRange,
        *,
        seed: int,
        index: int,
        round: int,
        counts: Counts = NO_COUNTS,
    ) -> NDArray[Any]:
        """Return a weighted update and its counts, float32 (payload_length,)."""
        values = clip(self._compression.apply(update, seed, round), self._clip_norm)
        accuracy = counts.accuracy if isfinite(counts.accuracy) else 0.0
        behind = [counts.loss, accuracy, counts.samples, counts.weight]
        weighted = values * np.float32(counts.weight)
        return np.concatenate((weighted, np.array(behind, np.float32)))

    def unsent(self, update: Vector, *, seed: int, round: int) -> Vector | None:
        """Return what of an update `encode` does not send; None when it sends all."""
        return self._compression.left(update, seed, round)

    def decode(
        self,
        total: NDArray[Any],
        contributors: int,
        public: PublicRange,
        *,
        seed: int | None = None,
        round: int | None = None,
    ) -> Mean:
        """Return the mean of the updates whose values were summed, by their weights."""
        losses, accuracies, samples, weights = total[-_NUM_COUNTS:].tolist()
        update = (total[:-_NUM_COUNTS] / (weights or 1)).astype(np.float32)
        if update.size < self._length:
            if seed is None or round is None:
                raise ParameterError("compressed updates need seed and round to decode")
            update = self._compression.undo(update, seed, round)
        return Mean(update, 0, losses / contributors, accuracies / contributors, int(samples + 0.5))


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
