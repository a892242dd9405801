"""What of a client's rounds may still count: those do that the server announces as counted."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class PendingUpdates(Generic[T]):
    """Holds what a round would change until the server says whether it counts.

    Attributes:
        sent: rounds in which an update was proposed.
        counted: rounds whose update is in a published sum.
        state: what the last counted round left behind; None before the first.
    """

    sent: int = 0
    counted: int = 0
    state: T | None = None
    _pending: dict[int, T] = field(default_factory=dict)

    def propose(self, round: int, state: T) -> None:
        """Hold what this round's update would change; older proposals can never count."""
        self._pending = {round: state}
        self.sent += 1

    def settle(self, round: int, counted: bool) -> None:
        """Keep or forget a proposal: abandoned, late and unknown rounds leave no trace."""
        if round not in self._pending:
            return
        state = self._pending.pop(round)
        if counted:
            self.state = state
            self.counted += 1
