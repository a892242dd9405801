"""One TCP connection that carries frames."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from mphe.net.frames import HEADER_SIZE, FrameError, FrameReader, encode_header

HELLO_SIZE = 4  # the first frame each way: the sender's index
HELLO_BYTES = HEADER_SIZE + HELLO_SIZE
CHUNK = 1 << 18  # bytes handed to asyncio at once; it buffers about 1 MiB beyond our queue
MAX_UNREAD = 1 << 16  # bytes behind a whole frame that may wait before we stop reading
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


class Owner(Protocol):
    """Who hears of a link once it has said hello."""

    def arrived(self, link: "Link") -> None:
        """Hear that bytes came."""

    def lost(self, link: "Link", reason: str) -> None:
        """Hear that the link is gone."""


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
        self.owner: Owner | None = None
        self.unsent = 0
        self.reader = FrameReader(first_limit)
        self._on_hello = on_hello
        self._queue: deque[memoryview] = deque()
        self._transport: asyncio.Transport | None = None
        self._writing_paused = False
        self._reading_paused = False
        self._deaf = False
        self._reason: str | None = None
        self._finish_timer: asyncio.TimerHandle | None = None

    @property
    def certificate(self) -> bytes | None:
        """The certificate (DER) that the other side proved to own; None without TLS."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport else None
        return tls.getpeercert(binary_form=True) if tls else None

    def accept(self, owner: Owner, max_frame: int) -> None:
        """Tell `owner` of what comes from now on, in frames of up to `max_frame` bytes."""
        self.owner = owner
        self.reader.set_max_length(max_frame)

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

    def read_on(self, wanted: bool) -> None:
        """Take what comes, or let the kernel's buffers fill."""
        # A TLS transport that was closed has nothing left to resume, and fails.
        if self._transport is None or self._transport.is_closing():
            return
        if wanted and self._reading_paused:
            self._transport.resume_reading()
        elif not wanted and not self._reading_paused:
            self._transport.pause_reading()
        self._reading_paused = not wanted

    def ignore(self) -> None:
        """Throw away what came, and all that still comes."""
        self._deaf = True
        self.reader = FrameReader(0)

    def finish(self, timeout: float) -> None:
        """Send what is queued, then close; abort after `timeout` seconds."""
        if self._finish_timer is not None:
            self._finish_timer.cancel()
        if self.closed.done():
            return
        loop = asyncio.get_running_loop()
        self._finish_timer = loop.call_later(timeout, self.abort, "closing took too long")
        self.read_on(True)  # closing over unread data would reset the connection
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
        """Keep what came for whoever takes its frames."""
        self.traffic.received += len(data)
        if self._deaf or self._reason is not None:
            return
        self.reader.feed(data)
        if self.owner is None:
            self._hear_hello()
        if self.owner is not None:
            self.owner.arrived(self)

    def _hear_hello(self) -> None:
        try:
            payload = self.reader.take()
        except FrameError as error:
            self.abort(f"sent what is not a frame: {error}")
            return
        if payload is not None:
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
        if self.owner is not None:
            self.owner.lost(self, reason)
