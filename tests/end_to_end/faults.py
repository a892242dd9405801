"""Something happens to a client at one exact point of the protocol."""

import asyncio
import fcntl
import os
import signal
import socket
import struct
import sys
import termios
import threading
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

import fl.run.client
from mphe import Client
from mphe.net.events import Event, Received
from mphe.net.frames import encode_header
from mphe.net.tcp import Connection
from mphe.run import deadlines
from mphe.wire import codec
from mphe.wire.messages import (
    Commit,
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Join,
    Reveal,
)
from tests.patience import scaled

KINDS = ("kill", "stop", "exception", "reset", "slow")
SLOW_SECONDS = 0.6
RECONNECT_SECONDS = 1.0
CONNECT_SECONDS = 3.0


@dataclass(frozen=True)
class Point:
    """Before, half way through, or after sending (or on receiving) a kind of message."""

    when: str
    message: type[Any]


STAGES = {
    "before_join": Point("before", Join),
    "after_commit": Point("after", Commit),
    "after_reveal": Point("after", Reveal),
    "before_upload": Point("before", Contribution),
    "mid_upload": Point("half", Contribution),
    "after_upload": Point("after", Contribution),
    "chosen": Point("received", DecryptionRequest),
    "mid_share": Point("half", DecryptionShare),
}
SETUP_STAGES = ("before_join", "after_commit", "after_reveal")


@dataclass(frozen=True)
class Fault:
    """What happens, where, and from which round on (once); the set-up is round 0."""

    stage: str
    kind: str
    round: int


class Struck(Exception):
    """Nobody catches this."""


class ResettableClient(Connection):
    """A connection that SIGUSR1 closes with RST instead of FIN."""

    async def next_event(self, timeout: float | None) -> Event | None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._reset)
        return await super().next_event(timeout)

    def _reset(self) -> None:
        link: Any = self._server.link
        if link is None or link._transport is None:
            return
        sock = link._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link._transport.abort()


class FaultyClient(ResettableClient):
    """A connection whose process is struck once."""

    fault: ClassVar[Fault]
    struck: ClassVar[bool] = False
    _later: asyncio.Task[None] | None = None

    def _hit(self, when: str, payload: bytes) -> bool:
        point = STAGES[self.fault.stage]
        if FaultyClient.struck or point.when != when:
            return False
        message = codec.decode(payload, 0)
        due = getattr(message, "round", 0) >= self.fault.round
        FaultyClient.struck = due and isinstance(message, point.message)
        return FaultyClient.struck

    def send(self, payload: bytes) -> bool:
        if self._hit("before", payload):
            self._strike()
        if self._hit("half", payload):
            self._later = asyncio.create_task(self._send_half(payload))
            return True
        sent = super().send(payload)
        if self._hit("after", payload):
            self._later = asyncio.create_task(self._strike_after_flush())
        return sent

    async def next_event(self, timeout: float | None) -> Event | None:
        await self._strike_first()
        event = await super().next_event(timeout)
        await self._strike_first()
        if isinstance(event, Received) and self._hit("received", event.payload):
            self._strike()
        return event

    async def _strike_first(self) -> None:
        if self._later is not None:
            task, self._later = self._later, None
            await task

    async def _send_half(self, payload: bytes) -> None:
        frame = encode_header(len(payload)) + payload
        half = len(frame) // 2
        link: Any = self._server.link
        link._transport.write(frame[:half])
        await self._strike_after_flush()
        still: Any = self._server.link
        if still is link and still._transport is not None:
            link._transport.write(frame[half:])

    async def _strike_after_flush(self) -> None:
        link: Any = self._server.link
        tls = link._transport
        tcp = tls._ssl_protocol._transport  # what TLS has handed on may still wait there
        sock = tls.get_extra_info("socket")
        while (
            link.unsent
            or tls.get_write_buffer_size()
            or tcp.get_write_buffer_size()
            or _unacknowledged(sock)
        ):
            await asyncio.sleep(0.001)
        self._strike()

    def _strike(self) -> None:
        kind = self.fault.kind
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "stop":
            # To this thread: another one might be slow to take the signal for all of them.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        elif kind == "exception":
            raise Struck("the test says so")
        elif kind == "slow":
            time.sleep(SLOW_SECONDS)
        else:
            self._reset()


def _unacknowledged(sock: Any) -> int:
    """Return the bytes that the kernel still has to bring to the other side."""
    answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


def install(fault: Fault | None) -> None:
    """Let the client of this process meet its fault; be done soon when the server is gone."""
    deadlines.SLACK_SECONDS = scaled(deadlines.SLACK_SECONDS)
    fl.run.client.RECONNECT_SECONDS = scaled(RECONNECT_SECONDS)
    fl.run.client.CONNECT_SECONDS = scaled(CONNECT_SECONDS)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    fl.run.client.Connection = ResettableClient  # type: ignore[attr-defined]
    if fault is not None:
        FaultyClient.fault = fault
        fl.run.client.Connection = FaultyClient  # type: ignore[attr-defined]


def spoil_sums() -> None:
    """Let the client of this process send bodies that encrypt nothing, round after round."""
    encrypt = Client.encrypt

    def spoilt(self: Client, integers: np.ndarray) -> Any:
        payload = encrypt(self, integers)
        return replace(payload, body=os.urandom(len(payload.body)))

    Client.encrypt = spoilt  # type: ignore[method-assign]
