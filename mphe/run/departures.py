"""Who went missing or was left out, counted."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum


class Kind(Enum):
    """How a client comes to miss something."""

    GONE = "gone"
    SILENT = "silent"
    REFUSED = "refused"
    EXCLUDED = "excluded"


@dataclass(frozen=True)
class Departure:
    """A client that went missing or was left out, in one way.

    Attributes:
        client: its index.
        round: the last one in which it happened; 0 is the set-up.
        reason: that of the last time.
        times: how often it happened.
    """

    client: int
    round: int
    reason: str
    times: int = 1

    def __str__(self) -> str:
        """Return a line for people."""
        if self.times == 1:
            return f"client {self.client} in round {self.round}: {self.reason}"
        return (
            f"client {self.client} {self.times:,} times, last in round {self.round}: {self.reason}"
        )


class Departures:
    """One entry for each client and kind, however often it happens."""

    def __init__(self) -> None:
        self._counted: dict[tuple[int, Kind], Departure] = {}

    def note(self, client: int, round: int, kind: Kind, reason: str) -> None:
        """Count what happened to a client."""
        before = self._counted.get((client, kind), Departure(client, round, reason, 0))
        self._counted[client, kind] = replace(
            before, round=round, reason=reason, times=before.times + 1
        )

    def __iter__(self) -> Iterator[Departure]:
        """Yield them in the order in which they happened first."""
        return iter(self._counted.values())
