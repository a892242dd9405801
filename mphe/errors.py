"""What can go wrong, and whose fault it is.

A `LocalProtocolError` means that our own program called a role at the wrong moment; a
`RemoteProtocolError` means that a peer sent something it should not have. The second costs that
peer its place in the round, never the round.
"""

from __future__ import annotations

from collections.abc import Iterable

LONGEST_TEXT = 1000


def printable(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text of a peer as a line that does nothing to the terminal that shows it.

    What cannot be printed (line ends, escapes, marks that turn the direction) is shown as its code.
    """
    shown = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


class MpheError(Exception):
    """Base of every error raised by this package."""


class ParameterError(MpheError, ValueError):
    """The requested parameters are insecure, too small or contradict each other."""


class OutOfRange(ParameterError):
    """One parameter is too small or too large, alone or beside the others.

    Attributes:
        field: its name in SessionParameters.
        low, high: what it may be; high is below low when the others leave it nothing.
    """

    def __init__(self, field: str, low: int, high: int, reason: str) -> None:
        """Keep the range beside the reason, which is the text."""
        super().__init__(reason)
        self.field = field
        self.low = low
        self.high = high


class EncodingError(MpheError, ValueError):
    """Bytes or numbers that do not have the form this version writes."""


class ProtocolError(MpheError):
    """A message or a call that the protocol does not allow now."""


class LocalProtocolError(ProtocolError):
    """We erred: this role was driven in a way that its state does not allow."""


class RemoteProtocolError(ProtocolError):
    """The peer erred.

    Attributes:
        sender: index of the party that sent the offending message (0 is the server).
    """

    def __init__(self, sender: int, reason: str) -> None:
        """Name the sender and the reason, in that order, in one line; it may quote the peer."""
        self.sender = sender
        self.reason = printable(reason)
        super().__init__(f"party {sender}: {self.reason}")


class MalformedMessage(RemoteProtocolError):
    """The bytes do not parse, or a field has an impossible value."""


class OtherVersion(MalformedMessage):
    """The sender speaks another version of the protocol, so it can take no part at all."""


class DuplicateMessage(RemoteProtocolError):
    """The sender already sent this message."""


class UnexpectedSender(RemoteProtocolError):
    """The sender has no business sending this message (now, or at all)."""


class TooLate(UnexpectedSender):
    """The sender has lost its place; it may be honest, and hear of it later."""


class RefusedDecryption(RemoteProtocolError):
    """A decryptor refuses a request of the server, and says why."""


class SetupFailed(MpheError):
    """No collective key came about.

    Attributes:
        missing: indices of the clients that vanished or misbehaved.
    """

    def __init__(self, reason: str, missing: Iterable[int]) -> None:
        self.missing = tuple(sorted(missing))
        names = ", ".join(map(str, self.missing)) or "none"
        super().__init__(f"setup failed: {reason} (missing clients: {names})")
