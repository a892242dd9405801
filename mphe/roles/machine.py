"""The frame of every role: a sans-I/O state machine with two tables, a line a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar

from mphe.errors import LocalProtocolError, RemoteProtocolError
from mphe.wire.messages import Message


@dataclass(frozen=True)
class Send:
    """Deliver this message to that party (0 is the server)."""

    receiver: int
    message: Message


@dataclass(frozen=True)
class Event:
    """Base of what a role tells its own program."""


Output = Send | Event
S = TypeVar("S", bound=Enum)
Accepts = Mapping[Any, Set[type[Any]]]
"""Which messages a state takes; every other one is refused."""
Moves = Mapping[Any, Mapping[str, Any]]
"""Where a state leads, by what happened; nothing else changes it."""


class Machine(Generic[S]):
    """A role. Subclasses give the tables and one handler for each message type.

    A handler checks first, and changes what the role holds last, so an exception leaves it as it
    was. Receiving a message changes the state only where its handler makes a move of the table.
    """

    ACCEPTS: ClassVar[Accepts] = {}
    MOVES: ClassVar[Moves] = {}

    def __init__(self, state: S) -> None:
        self.state: S = state
        self._handlers: dict[type[Any], Callable[[int, Any], list[Output]]] = {}

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take one message and return what is to be sent or told.

        Raises:
            RemoteProtocolError: the message is wrong, or wrong now; nothing has changed.
        """
        kind = type(message)
        if kind not in self.ACCEPTS[self.state]:
            raise RemoteProtocolError(sender, f"{kind.__name__} is not expected now ({self.state})")
        return self._handlers[kind](sender, message)

    def _move(self, name: str) -> None:
        """Make a move of the table.

        Raises:
            LocalProtocolError: the state does not allow it.
        """
        state: S | None = self.MOVES[self.state].get(name)
        if state is None:
            raise LocalProtocolError(f"{name} is not possible now ({self.state})")
        self.state = state
