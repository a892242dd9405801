"""Who takes no further part in a session, and why."""

from __future__ import annotations

from dataclasses import dataclass

from mphe.roles.machine import Event


@dataclass(frozen=True)
class Excluded(Event):
    """A client that was found out takes no further part.

    Attributes:
        client: its index.
        reason: what it did, one line.
    """

    client: int
    reason: str
