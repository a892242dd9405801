"""What a party wants done after a call: bytes to deliver, events for its own program."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mphe.roles.machine import Event, Output, Send
from mphe.wire import codec

Mail = list[tuple[int, bytes]]


@dataclass(frozen=True)
class Step:
    """What follows from one call of a party; store its state before anything is sent.

    Attributes:
        mail: (receiver, message) in the order of sending; receiver 0 is the server.
        events: what happened, for the program that runs this party.
    """

    mail: Mail = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @classmethod
    def of(cls, outputs: Iterable[Output]) -> Step:
        """Return the outputs of a role, its messages as bytes; equal messages share theirs."""
        step, written = cls(), dict[int, bytes]()
        for output in outputs:
            if isinstance(output, Send):
                message = output.message
                if id(message) not in written:
                    written[id(message)] = codec.encode(message)
                step.mail.append((output.receiver, written[id(message)]))
            else:
                step.events.append(output)
        return step
