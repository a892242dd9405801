"""`--aggregation plain`: the same rounds and transport, with updates in clear, for comparison."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mphe.arithmetic.sampling import RandomSource
from mphe.client import Finished, Rejected
from mphe.errors import DuplicateMessage, MalformedMessage, UnexpectedSender
from mphe.roles.attendance import Attendance
from mphe.roles.machine import Output, Send
from mphe.roles.rounds.aggregator import (
    Abandoned,
    AggregatorState,
    Closed,
    Counted,
    Outdated,
    Summed,
)
from mphe.roles.rounds.contributor import Contributor
from mphe.roles.step import Step
from mphe.scheme.encryptor import Payload
from mphe.wire import codec
from mphe.wire.messages import SERVER, Contribution, Finish, Join, Rejection, RoundEnd, RoundStart


class PlainEncryptor:
    """Drop-in for `mphe.roles.rounds.contributor.Encryptor` that hides nothing."""

    def encrypt(self, values: NDArray[Any], source: RandomSource) -> Payload:
        """Return an update, float32 (size,), in clear."""
        return Payload(b"", b"", values.astype("<f4").tobytes())


class PlainServer:
    """Drop-in for `mphe.Server` that adds what it can read."""

    def __init__(self, size: int, num_clients: int, minimum: int) -> None:
        """Expect clients 1..num_clients, and of at least `minimum` a round `size` values each."""
        self.round = 0
        self.members = set(range(1, num_clients + 1))
        self._state = AggregatorState.IDLE
        self._joining = set(self.members)
        self._size = size
        self._num_clients = num_clients
        self._minimum = minimum
        self._attendance = Attendance()
        self._contributors: list[int] = []
        self._total = np.zeros(size)

    @property
    def step(self) -> tuple[object, ...]:
        """What changes whenever a new wait begins."""
        return ("joining",) if self._joining else (self._state, self.round)

    def resume_at(self, round: int) -> None:
        """Go on after this round, whose number is not used again."""
        self.round = round

    def start_round(self, model: bytes, present: Iterable[int]) -> Step:
        """Send the model to the clients that are present and expect their updates."""
        self.round += 1
        self._state = AggregatorState.COLLECTING
        self._attendance.begin(present, self._minimum)
        self._contributors = []
        self._total = np.zeros(self._size)
        start = RoundStart(self.round, model)
        outputs: list[Output] = [Send(index, start) for index in self._there()]
        return Step.of(outputs if self._attendance.expected else outputs + self._close())

    def receive(self, sender: int, data: bytes) -> Step:
        """Take a join or an update; RemoteProtocolError when it is wrong."""
        message = codec.decode(data, sender)
        if isinstance(message, Join):
            self._joining.discard(sender)
            return Step()
        if not isinstance(message, Contribution):
            raise UnexpectedSender(sender, f"{type(message).__name__} is not expected now")
        return Step.of(self._on_contribution(sender, message))

    def _on_contribution(self, sender: int, message: Contribution) -> list[Output]:
        if message.transcript or message.segment:
            raise MalformedMessage(sender, "its update is of an encrypted session, or in segments")
        if message.round < self.round or self._state is not AggregatorState.COLLECTING:
            if message.round == self.round and sender not in self._contributors:
                self._attendance.just_missed(sender)
            return [Outdated(sender)]
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
        counted = Counted(self.round, sender, message.metrics)
        return [counted] if self._attendance.expected else [counted, *self._close()]

    def lost(self, *peers: int) -> Step:
        """Go on without some clients."""
        self._joining.difference_update(peers)
        self._attendance.lost(peers)
        waits = self._state is AggregatorState.COLLECTING and self._attendance.expected
        return Step() if waits or self._state is AggregatorState.IDLE else Step.of(self._close())

    def deadline_passed(self) -> Step:
        """Start with whoever has joined, or end the round with the updates that are there."""
        self._joining.clear()
        if self._state is AggregatorState.IDLE:
            return Step()
        self._attendance.deadline()
        return Step.of(self._close())

    def _close(self) -> list[Output]:
        self._state = AggregatorState.IDLE
        contributors = tuple(sorted(self._contributors))
        if len(contributors) < self._minimum:
            abandoned = Abandoned(
                round=self.round,
                reason=f"{len(contributors)} updates arrived, at least {self._minimum} are needed",
                begun=False,
                contributors=contributors,
                missing=tuple(sorted(self.members - set(contributors))),
                attempts=0,
            )
            return [abandoned, *self._end(())]
        summed = Summed(self.round, contributors, self._total, 0)
        return [Closed(self.round, contributors), summed, *self._end(contributors)]

    def waiting_for(self) -> tuple[int, ...]:
        """Return whose join or update is still missing."""
        waits = self._state is AggregatorState.COLLECTING
        return tuple(sorted(self._joining or (self._attendance.expected if waits else ())))

    def finish(self, peers: Iterable[int], reason: str) -> Step:
        """Tell clients that the session is over, and why."""
        return Step.of(Send(peer, Finish(reason)) for peer in sorted(peers))

    def _end(self, contributors: tuple[int, ...]) -> list[Output]:
        end = RoundEnd(self.round, contributors)
        return [Send(index, end) for index in self._there()]

    def _there(self) -> list[int]:
        return sorted(self._attendance.present)


class PlainClient:
    """Drop-in for `mphe.Client` whose updates travel in clear."""

    def __init__(self, index: int) -> None:
        """Be client `index`, from 1."""
        self._index = index
        self._contributor = Contributor(
            index, PlainEncryptor(), RandomSource.from_system(), transcript=b""
        )

    is_open = True
    state = b""

    @property
    def round(self) -> int:
        """The newest round that this client was told of."""
        return self._contributor.round

    def start(self) -> Step:
        """Join without keys."""
        return Step.of([Send(SERVER, Join(self._index, b"", b"", b""))])

    def reconnected(self) -> Step:
        """Join again over a new connection."""
        return self.start()

    def receive(self, data: bytes) -> Step:
        """Take one message of the server; RemoteProtocolError when it is wrong."""
        message = codec.decode(data, SERVER)
        if isinstance(message, Finish):
            return Step.of([Finished(message.reason)])
        if isinstance(message, Rejection):
            return Step.of([Rejected(message.reason)])
        # The end of a round that began before this client was back is no news to it.
        if isinstance(message, RoundEnd) and not self._contributor.round:
            return Step()
        return Step.of(self._contributor.receive(SERVER, message))

    def encrypt(self, values: NDArray[Any]) -> Payload:
        """Return an update as it is sent."""
        return self._contributor.encrypt(values)

    def contribute(self, round: int, update: NDArray[Any] | Payload, metrics: bytes = b"") -> Step:
        """Send an update."""
        payload = update if isinstance(update, Payload) else self.encrypt(update)
        return Step.of(self._contributor.contribute(round, payload, metrics))
