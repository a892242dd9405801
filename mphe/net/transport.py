"""The two interfaces that `tcp` and `loopback` share; callers type against these."""

from collections.abc import Set
from typing import Protocol

from mphe.net.events import Event

SERVER = 0  # the server's peer index; clients are 1..n


class ServerTransport(Protocol):
    """The server's end: many peers, one stream of events."""

    @property
    def connected(self) -> Set[int]:
        """The peers that frames can be sent to now."""

    async def next_event(self, timeout: float | None) -> Event | None:
        """Take an event, of each peer in turn; None when `timeout` seconds pass first.

        None waits for ever.
        """

    def send(self, peer: int, payload: bytes) -> bool:
        """Queue one frame and return at once; False when the peer is not connected.

        Raises FrameError for a payload that is empty or of 4 GiB and more.
        """

    def bytes_sent(self, peer: int) -> int:
        """Bytes sent to the peer over all its connections, frame headers included."""

    def bytes_received(self, peer: int) -> int:
        """Bytes received from the peer over all its connections, frame headers included."""

    def disconnect(self, peer: int, reason: str) -> None:
        """Send what is queued for the peer, then close; Lost is told, and nothing that it sent."""

    def bar(self, peer: int, seconds: float) -> None:
        """Refuse new connections of the peer for so long; that one may not be there any more."""

    async def close(self, timeout: float = 5.0) -> None:
        """Stop; spend at most `timeout` seconds on sending what is queued."""


class ClientTransport(Protocol):
    """A client's end: one peer, the server."""

    async def next_event(self, timeout: float | None) -> Event | None:
        """Take the oldest event; None when `timeout` seconds pass first (None waits for ever)."""

    def send(self, payload: bytes) -> bool:
        """Queue one frame and return at once; False when the server is not connected.

        Raises FrameError for a payload that is empty or of 4 GiB and more.
        """

    @property
    def bytes_sent(self) -> int:
        """Bytes sent to the server, frame headers included."""

    @property
    def bytes_received(self) -> int:
        """Bytes received from the server, frame headers included."""

    async def close(self, timeout: float = 5.0) -> None:
        """Stop; spend at most `timeout` seconds on sending what is queued."""
