"""One TCP connection that carries frames, and the peer that outlives its connections."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from mphe.net.events import Connected, Event, Lost, Received
from mphe.net.frames import HEADER_SIZE, FrameError, FrameReader, encode_header

HELLO_SIZE = 4  # the first frame each way: the sender's index
HELLO_BYTES = HEADER_SIZE + HELLO_SIZE
CHUNK = 1 << 18  # bytes handed to asyncio at once; it buffers about 1 MiB beyond our queue
MAX_UNREAD = 4  # frames of one peer that may wait in the inbox before we stop reading
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # gone after a minute


def describe(error: Exception) -> str:
    """Return why a connection failed, in words even where asyncio gives none."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or "closed by the other side"


@dataclass
class Traffic:
    """Bytes handed to and taken from the connection, frame headers included."""

    sent: int = 0
    received: int = 0


class Link(asyncio.Protocol):
    """One connection: a hello, then frames both ways.

    A plain Protocol, not a BufferedProtocol: over TLS asyncio hands the latter one buffer at a
    time and drops the rest when the other side closes right after its last frame. It is also
    the faster of the two here.
    """

    def __init__(self, on_hello: Callable[["Link", bytes], None], first_limit: int) -> None:
        """Prepare a link whose first frame goes to `on_hello`.

        That may raise ConnectionRefusedError or give the link to a Peer. Until then frames are
        limited to `first_limit` bytes.
        """
        loop = asyncio.get_running_loop()
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        # Hellos are not counted, so the totals are those of the frames the caller knows of.
        self.traffic = Traffic(-HELLO_BYTES, -HELLO_BYTES)
        self.peer: Peer | None = None
        self.unsent = 0
        self._on_hello = on_hello
        self._reader = FrameReader(first_limit)
        self._queue: deque[memoryview] = deque()
        self._transport: asyncio.Transport | None = None
        self._writing_paused = False
        self._reason: str | None = None
        self._finish_timer: asyncio.TimerHandle | None = None

    @property
    def certificate(self) -> bytes | None:
        """The certificate (DER) that the other side proved to own; None without TLS."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport else None
        return tls.getpeercert(binary_form=True) if tls else None

    def accept(self, peer: "Peer", max_frame: int) -> None:
        """Deliver what comes from now on to `peer`, in frames of up to `max_frame` bytes."""
        self.peer = peer
        self._reader.set_max_length(max_frame)

    def send(self, payload: bytes) -> None:
        """Queue one frame. Raises FrameError for a payload that no frame can carry."""
        header = encode_header(len(payload))
        view = memoryview(payload)
        # Header and payload leave together; the rest of a long payload is not copied.
        first = CHUNK - HEADER_SIZE
        self._queue.append(memoryview(header + view[:first]))
        if len(payload) > first:
            self._queue.append(view[first:])
        self.unsent += HEADER_SIZE + len(payload)
        self._write()

    def pause_reading(self) -> None:
        """Let the kernel's buffers fill until resume_reading."""
        if self._transport:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo pause_reading."""
        # A TLS transport that was closed has nothing left to resume, and fails.
        if self._transport and not self._transport.is_closing():
            self._transport.resume_reading()

    def finish(self, timeout: float) -> None:
        """Send what is queued, then close; abort after `timeout` seconds."""
        if self._finish_timer is not None:
            self._finish_timer.cancel()
        if self.closed.done():
            return
        loop = asyncio.get_running_loop()
        self._finish_timer = loop.call_later(timeout, self.abort, "closing took too long")
        self.resume_reading()  # closing over unread data would reset the connection
        self._write()

    def abort(self, reason: str) -> None:
        """Close now and forget what is queued; the first reason given is the one reported."""
        self._reason = self._reason or reason
        self._queue.clear()
        self.unsent = 0
        if self._transport:
            self._transport.abort()
        elif not self.closed.done():
            self.closed.set_result(None)

    def _write(self) -> None:
        if self._transport is None or self._reason is not None:
            return
        while self._queue and not self._writing_paused:
            view = self._queue.popleft()
            if len(view) > CHUNK:
                self._queue.appendleft(view[CHUNK:])
            chunk = view[:CHUNK]
            self.unsent -= len(chunk)
            self.traffic.sent += len(chunk)
            self._transport.write(chunk)
        if self._finish_timer is not None and not self._queue and not self._transport.is_closing():
            self._transport.close()

    # What asyncio calls:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set up the socket."""
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            if hasattr(socket, option):  # not on every system
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def data_received(self, data: bytes) -> None:
        """Cut frames; one that is not allowed ends the connection."""
        self.traffic.received += len(data)
        try:
            payloads = self._reader.feed(data)
        except FrameError as error:
            self.abort(f"sent what is not a frame: {error}")
            return
        for payload in payloads:
            if self.peer is not None:
                self.peer.deliver(self, payload)
            elif self._reason is None:
                self._greet(payload)

    def _greet(self, payload: bytes) -> None:
        try:
            self._on_hello(self, payload)
        except ConnectionRefusedError as error:
            self.abort(str(error))
        else:
            if not self.greeted.done():
                self.greeted.set_result(None)

    def pause_writing(self) -> None:
        """Keep the rest in our own queue, where it is counted."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Go on with the queue."""
        self._writing_paused = False
        self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        reason = self._reason or (describe(exc) if exc else "closed by the other side")
        self._transport = None
        self.abort(reason)
        if self._finish_timer is not None:
            self._finish_timer.cancel()
        if not self.greeted.done():
            self.greeted.set_exception(ConnectionError(reason))
        if self.peer is not None:
            self.peer.lost(self, reason)


class Peer:
    """One identified party: its totals, its unread frames and its present link, if any."""

    def __init__(self, index: int, inbox: asyncio.Queue[Event]) -> None:
        """Report this peer's events to `inbox`."""
        self.index = index
        self.link: Link | None = None
        self.traffic = Traffic()
        self._inbox = inbox
        self._unread = 0

    def attach(self, link: Link, max_frame: int) -> None:
        """Take over a link that has said hello; it replaces an older one."""
        self.drop("replaced by a newer connection")
        self.traffic.sent += link.traffic.sent
        self.traffic.received += link.traffic.received
        link.traffic = self.traffic
        link.accept(self, max_frame)
        self.link = link
        if self._unread >= MAX_UNREAD:  # a new connection is no way around the limit
            link.pause_reading()
        self._inbox.put_nowait(Connected(self.index))

    def deliver(self, link: Link, payload: bytes) -> None:
        """Report a frame, unless it is a late one of a link already given up."""
        if link is not self.link:
            return
        self._unread += 1
        if self._unread >= MAX_UNREAD:
            link.pause_reading()
        self._inbox.put_nowait(Received(self.index, payload))

    def consumed(self) -> None:
        """Count one delivered frame as read."""
        self._unread -= 1
        if self.link is not None and self._unread < MAX_UNREAD:
            self.link.resume_reading()

    def lost(self, link: Link, reason: str) -> None:
        """Report that the link is gone, unless that was already done."""
        if link is self.link:
            self.link = None
            self._inbox.put_nowait(Lost(self.index, reason))

    def drop(self, reason: str, flush_seconds: float = 0) -> None:
        """Report Lost at once; send what is queued for at most `flush_seconds`, then close."""
        link = self.link
        if link is None:
            return
        self.lost(link, reason)
        if flush_seconds > 0:
            link.finish(flush_seconds)
        else:
            link.abort(reason)
