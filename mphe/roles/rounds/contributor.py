"""A client's part in a round: encrypt one update under the session's keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from numpy.typing import NDArray

from mphe.arithmetic.hedge import Hedge, values_digest
from mphe.errors import LocalProtocolError, RemoteProtocolError, UnexpectedSender
from mphe.roles.machine import Accepts, Event, Machine, Moves, Output, Send
from mphe.roles.setup.common import check_transcript, long_number, number
from mphe.roles.verified.evidence import SEGMENT, model_digest
from mphe.roles.verified.pledges import Pledged, PledgedEncryptor
from mphe.roles.verified.proving import ProvingEncryptor
from mphe.scheme import partition
from mphe.scheme.encryptor import Cipher, Payload
from mphe.wire.messages import SERVER, UNDIVIDED, Contribution, Draw, Message, RoundEnd, RoundStart
from mphe.wire.sizes import MAX_METRICS


class ContributorState(Enum):
    """What a contributor does."""

    IDLE = "idle"
    WORKING = "working"
    SENT = "sent"


IDLE, WORKING, SENT = ContributorState


@dataclass(frozen=True)
class TrainOn(Event):
    """A round started: compute an update of this model, then call `contribute`."""

    round: int
    model: bytes


@dataclass(frozen=True)
class RoundEnded(Event):
    """A round ended; says whether our contribution is in the sum."""

    round: int
    counted: bool


@dataclass(frozen=True)
class Progress:
    """What a contributor must not forget, even when it is started again.

    Attributes:
        round: the newest that it was told of.
        state: what it does in that round, as the value of `ContributorState`.
        pledged: where aggregates are verified.
        model: digest of the model of that round.
        draw: of that round, as it was told: with the digest of the salt.
    """

    round: int = 0
    state: str = IDLE.value
    pledged: Pledged = field(default_factory=Pledged)
    model: bytes = b""
    draw: Draw = UNDIVIDED


class Contributor(Machine[ContributorState]):
    """Follows the rounds; a newer round replaces an unfinished one."""

    ACCEPTS: ClassVar[Accepts] = {
        IDLE: {RoundStart, RoundEnd},
        WORKING: {RoundStart, RoundEnd},
        SENT: {RoundStart, RoundEnd},
    }
    MOVES: ClassVar[Moves] = {
        IDLE: {"start": WORKING, "end": IDLE},
        WORKING: {"contribute": SENT, "start": WORKING, "end": IDLE},
        SENT: {"start": WORKING, "end": IDLE},
    }

    def __init__(
        self,
        index: int,
        cipher: Cipher,
        pledged: PledgedEncryptor | None = None,
        *,
        proving: ProvingEncryptor | None = None,
        transcript: bytes,
        progress: Progress | None = None,
        hedge: Hedge | None = None,
        groups: int = 1,
    ) -> None:
        """Wait for the first round.

        Args:
            index: of this client.
            cipher: of this session.
            pledged: where aggregates are verified; it wraps the cipher.
            proving: where clients prove what they send; it wraps the cipher.
            transcript: T; empty where nothing is encrypted.
            progress: what a process before this one kept of the rounds.
            hedge: of every key and error of its contributions.
            groups: that everybody agreed to split contributors into at most.
        """
        progress = progress or Progress()
        super().__init__(ContributorState(progress.state))
        self.index = index
        self.round = progress.round
        self.draw = progress.draw
        self._groups = groups
        self._transcript = transcript
        self._cipher = cipher
        self._pledged = pledged
        self._proving = proving
        self._model = progress.model
        self._hedge = hedge or Hedge.fresh()
        self._last_c1 = b""
        self._handlers = {RoundStart: self._on_start, RoundEnd: self._on_end}

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take one message of the server."""
        if sender != SERVER:
            raise UnexpectedSender(sender, "only the server speaks to a client")
        return super().receive(sender, message)

    @property
    def progress(self) -> Progress:
        """What must outlive this process."""
        pledged = Pledged() if self._pledged is None else self._pledged.pledged
        return Progress(self.round, self.state.value, pledged, self._model, self.draw)

    def pledge(self) -> list[Output]:
        """Say which c1 comes next, where aggregates are verified; on every new connection."""
        if self._pledged is None:
            return []
        # Of 32 fresh bytes, which serve once: no hedge helps a pledge that is used twice.
        source = self._hedge.stream("pledge", self._transcript, long_number(self.round))
        return [Send(SERVER, self._pledged.pledge(source))]

    def _on_start(self, sender: int, message: RoundStart) -> list[Output]:
        check_transcript(message.transcript, self._transcript, sender)
        self._check_draw(sender, message.draw)
        if message.round <= self.round:
            raise RemoteProtocolError(sender, f"round {message.round} after round {self.round}")
        listed = self._pledged is None or self._pledged.begin(message)
        self._move("start")
        self.round, self._model = message.round, model_digest(message.model)
        self.draw = message.draw
        # Who is not on the list sits this round out, and is on the next.
        train = [TrainOn(message.round, message.model)] if listed else []
        return [*self.pledge(), *train]

    def _check_draw(self, sender: int, draw: Draw) -> None:
        """Refuse groups that nobody agreed to, an older draw, and a draw with another salt."""
        if not partition.is_draw(draw, self._groups):
            raise RemoteProtocolError(sender, "it draws groups, which nobody agreed to")
        last = self.draw
        if draw.number < last.number or (draw.number == last.number and draw != last):
            raise RemoteProtocolError(
                sender, f"it draws groups by draw {draw.number} after draw {last.number}"
            )

    def _on_end(self, sender: int, message: RoundEnd) -> list[Output]:
        check_transcript(message.transcript, self._transcript, sender)
        if message.round != self.round:
            raise RemoteProtocolError(sender, f"end of round {message.round} in {self.round}")
        self._move("end")
        return [RoundEnded(message.round, self.index in message.contributors)]

    def encrypt(self, values: NDArray[Any]) -> Payload:
        """Return the payload of an update; may run beside `receive`, in another thread.

        Whatever is drawn depends on all that the payload depends on: two lives of this client that
        encrypt different things never do it under the same keys.
        """
        cipher = self._cipher if self._pledged is None else self._pledged
        listed = b"" if self._pledged is None else self._pledged.statement_digest()
        round = self.round
        place = (self._transcript, long_number(round), number(SEGMENT))
        parts = (*place, self._model, listed, values_digest(values))
        stream = self._hedge.stream("contribution", *parts)
        if self._proving is not None:
            return self._proving.encrypt(values, stream, round)
        return cipher.encrypt(values, stream)

    def contribute(self, round: int, payload: Payload, metrics: bytes = b"") -> list[Output]:
        """Return the contribution, or nothing when its round is over.

        Raises:
            LocalProtocolError: no round waits for a contribution, this payload was sent before, or
                the metrics are too long.
        """
        if round != self.round or self.state is IDLE:
            return []
        if len(metrics) > MAX_METRICS:
            raise LocalProtocolError(f"metrics are at most {MAX_METRICS} bytes, not {len(metrics)}")
        if payload.c1 and payload.c1 == self._last_c1:
            raise LocalProtocolError("a payload serves one round: its keys must never be reused")
        if payload.round not in (0, round):
            raise LocalProtocolError(f"this payload was encrypted for round {payload.round}")
        contribution = Contribution(
            round,
            payload.c0,
            payload.c1,
            payload.body,
            metrics,
            payload.proof,
            b"" if self._pledged is None else self._pledged.sign(payload.c1),
            self._transcript,
        )
        self._move("contribute")
        self._last_c1 = payload.c1
        return [Send(SERVER, contribution)]
