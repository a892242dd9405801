"""The frame of every role: a sans-I/O state machine with one transition table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
Trigger = type[Any] | str
"""A message type, or the name of a local call or of a condition that came true."""
Transitions = Mapping[tuple[Enum, Trigger], Any]


class Machine(Generic[S]):
    """A role. Subclasses give the table and one handler for each message type.

    A handler checks first and changes state last, so an exception leaves the role as it was.
    """

    TRANSITIONS: ClassVar[Transitions] = {}

    def __init__(self, state: S) -> None:
        """Start in a state."""
        self.state: S = state
        self._handlers: dict[type[Any], Callable[[int, Any], list[Output]]] = {}

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take one message and return what is to be sent or told.

        Raises:
            RemoteProtocolError: the message is wrong, or wrong now; nothing has changed.
        """
        kind = type(message)
        if (self.state, kind) not in self.TRANSITIONS:
            raise RemoteProtocolError(sender, f"{kind.__name__} is not expected now ({self.state})")
        before = self.state
        outputs = self._handlers[kind](sender, message)
        # A handler that completed a stage has moved on already.
        if self.state is before:
            self.state = self.TRANSITIONS[before, kind]
        return outputs

    def _fire(self, trigger: str) -> None:
        """Follow a local transition.

        Raises:
            LocalProtocolError: the state does not allow it.
        """
        if (self.state, trigger) not in self.TRANSITIONS:
            raise LocalProtocolError(f"{trigger} is not possible now ({self.state})")
        self.state = self.TRANSITIONS[self.state, trigger]
