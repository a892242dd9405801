"""A party that outlives its connections: its totals, and what of it is unread."""

from collections import deque
from dataclasses import dataclass

from mphe.net.events import Connected, Event, Lost, Received
from mphe.net.frames import FrameError
from mphe.net.inbox import Inbox
from mphe.net.link import MAX_UNREAD, Link, Traffic


@dataclass
class _Connection:
    """One connection, as far as it has been told; `reason` once it has ended."""

    link: Link
    told: bool = False
    reason: str | None = None


class Peer:
    """One identified party, at most two of its connections, and its present link, if any.

    What is unread stays as bytes in the link that it came over. So a peer holds no more than one
    frame, MAX_UNREAD bytes, what is read at once, and as much of the connection before, of which
    the rest is told first. What comes and goes in between is never told.
    """

    def __init__(self, index: int, inbox: Inbox) -> None:
        """Tell this peer's events when `inbox` asks."""
        self.index = index
        self.link: Link | None = None
        self.traffic = Traffic()
        self._inbox = inbox
        self._connections: deque[_Connection] = deque()

    def attach(self, link: Link, max_frame: int) -> None:
        """Take over a link that has said hello; it replaces an older one."""
        older = self.link
        if older is not None:
            self.lost(older, "replaced by a newer connection")
            older.abort("replaced by a newer connection")
        self.traffic.sent += link.traffic.sent
        self.traffic.received += link.traffic.received
        link.traffic = self.traffic
        self.link = link
        if len(self._connections) == 2:
            self._connections.pop()  # not told yet, since the one before is not
        self._connections.append(_Connection(link))
        link.accept(self, max_frame)
        self._regulate()
        self._inbox.rouse(self)

    def limit(self, max_frame: int) -> None:
        """Change how long the frames may be that are not taken yet."""
        if self.link is not None:
            self.link.reader.set_max_length(max_frame)

    def arrived(self, link: Link) -> None:
        """Hear that bytes came over a link."""
        if link is self.link and self._regulate():
            self._inbox.rouse(self)

    def next_event(self) -> Event | None:
        """Return the oldest event; None when there is none."""
        while self._connections:
            oldest = self._connections[0]
            if not oldest.told:
                oldest.told = True
                return Connected(self.index)
            payload = self._take(oldest)
            if payload is not None:
                return Received(self.index, payload)
            if oldest.reason is None:
                return None
            self._connections.popleft()
            self._regulate()
            return Lost(self.index, oldest.reason)
        return None

    def _take(self, connection: _Connection) -> bytes | None:
        """Return the next frame of a connection; what is none ends it."""
        try:
            payload = connection.link.reader.take()
        except FrameError as error:
            connection.link.ignore()
            if connection.link is self.link:
                self.drop(f"sent what is not a frame: {error}")
            return None
        self._regulate()
        return payload

    def _regulate(self) -> bool:
        """Read on unless enough waits; return whether there is something to tell.

        A new connection is no way around that: it is read once the one before has been told.
        """
        link = self.link
        if link is None:
            return bool(self._connections)
        try:
            whole = link.reader.has_frame()
        except FrameError as error:
            if link is not self._connections[0].link:
                whole = True  # told in its turn
            else:
                self.drop(f"sent what is not a frame: {error}")
                return True
        first = link is self._connections[0].link
        link.read_on(first and not (whole and link.reader.held >= MAX_UNREAD))
        return whole or not first

    def lost(self, link: Link, reason: str) -> None:
        """Tell, in its turn, that the link is gone, unless that was already done."""
        if link is self.link:
            self.link = None
            self._connections[-1].reason = reason
            self._inbox.rouse(self)

    def drop(self, reason: str, flush_seconds: float = 0) -> None:
        """End the connection; send what is queued for at most `flush_seconds`, then close.

        Nothing is told any more of what it sent, nor of what the one before sent.
        """
        link = self.link
        if link is None:
            return
        self.lost(link, reason)
        for connection in self._connections:
            connection.link.ignore()
        if flush_seconds > 0:
            link.finish(flush_seconds)
        else:
            link.abort(reason)
