"""Taking the contributions of a round: which one counts, and which one is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mphe.errors import DuplicateMessage, RemoteProtocolError, TooLate
from mphe.roles.attendance import Attendance
from mphe.roles.machine import Event
from mphe.wire.messages import Contribution

Add = Callable[[int, Contribution], None]
"""Adds what a client sent to the sum; MalformedMessage when that cannot be."""


@dataclass(frozen=True)
class Counted(Event):
    """A contribution is in the sum; `metrics` is what the client said in clear."""

    round: int
    client: int
    metrics: bytes


@dataclass(frozen=True)
class Outdated(Event):
    """A message of a round or attempt that is over; nobody is blamed."""

    sender: int


@dataclass
class Collecting:
    """The contributions of one round, of whatever scheme.

    Attributes:
        number: of the round, from 1; 0 before the first.
        contributors: U, in the order of their arrival.
    """

    number: int
    contributors: list[int] = field(default_factory=list)

    def announced(self) -> tuple[int, ...]:
        """Return U as all others see it."""
        return tuple(sorted(self.contributors))

    def take(
        self,
        sender: int,
        message: Contribution,
        attendance: Attendance,
        add: Add | None,
    ) -> Counted | Outdated:
        """Count a contribution, or say that it came after the round.

        Args:
            sender: whose it is.
            message: of this session.
            attendance: of the round.
            add: puts it into the sum; None once the round takes no more.

        Raises:
            RemoteProtocolError: it is wrong, or wrong now; nothing has changed.
        """
        if message.round < self.number or add is None:
            if message.round == self.number and sender not in self.contributors:
                attendance.just_missed(sender)
            return Outdated(sender)
        if message.round > self.number:
            raise RemoteProtocolError(sender, f"contributes to round {message.round} too early")
        if sender in self.contributors:
            raise DuplicateMessage(sender, f"it contributed to round {self.number} before")
        if sender not in attendance.present:
            raise TooLate(sender, f"it takes no part in round {self.number}")
        add(sender, message)
        self.contributors.append(sender)
        attendance.arrived(sender)
        return Counted(self.number, sender, message.metrics)
