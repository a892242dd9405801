"""All parties in one process: the events and counters of `mphe.net.tcp` without sockets."""

import asyncio
from collections import Counter
from collections.abc import Set

from mphe.net.events import Connected, Event, Lost, Received, next_event
from mphe.net.frames import HEADER_SIZE, encode_header
from mphe.net.transport import SERVER


class Network:
    """One server and whoever connects to it."""

    def __init__(self) -> None:
        self.server = LoopbackServer()

    def connect(self, index: int) -> "LoopbackClient":
        """Connect as client `index`; an older connection of that client is replaced."""
        client = LoopbackClient(self.server, index)
        self.server.attach(client)
        return client

    def cut(self, peer: int) -> None:
        """Kill the peer's connection; both ends see Lost."""
        self.server.disconnect(peer, "connection cut")


class LoopbackServer:
    """The server's end; see ServerTransport."""

    def __init__(self) -> None:
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._clients: dict[int, LoopbackClient] = {}
        self._sent: Counter[int] = Counter()
        self._received: Counter[int] = Counter()
        self._barred: dict[int, float] = {}

    @property
    def connected(self) -> Set[int]:
        """The peers that frames can be sent to now."""
        return set(self._clients)

    async def next_event(self, timeout: float | None) -> Event | None:
        """Take the oldest event; None when `timeout` seconds pass first (None waits for ever)."""
        return await next_event(self._inbox, timeout)

    def send(self, peer: int, payload: bytes) -> bool:
        """Deliver one frame; False when the peer is not connected.

        Raises FrameError for a payload that is empty or of 4 GiB and more.
        """
        encode_header(len(payload))
        client = self._clients.get(peer)
        if client is None:
            return False
        self._sent[peer] += HEADER_SIZE + len(payload)
        client.deliver(payload)
        return True

    def bytes_sent(self, peer: int) -> int:
        """Bytes sent to the peer over all its connections, frame headers included."""
        return self._sent[peer]

    def bytes_received(self, peer: int) -> int:
        """Bytes received from the peer over all its connections, frame headers included."""
        return self._received[peer]

    def disconnect(self, peer: int, reason: str) -> None:
        """Close the peer's connection; both ends see Lost."""
        client = self._clients.pop(peer, None)
        if client is not None:
            self._inbox.put_nowait(Lost(peer, reason))
            client.lose("closed by the other side")

    def bar(self, peer: int, seconds: float) -> None:
        """Refuse new connections of the peer for so long; that one may not be there any more."""
        self._barred[peer] = asyncio.get_running_loop().time() + seconds

    async def close(self, timeout: float = 5.0) -> None:
        """Close every connection; nothing is ever queued here."""
        for peer in list(self._clients):
            self.disconnect(peer, "the server closes")

    def attach(self, client: "LoopbackClient") -> None:
        """Take in a client; an older connection of the same index is replaced."""
        barred = self._barred.get(client.index)
        if barred is not None and asyncio.get_running_loop().time() < barred:
            client.lose("closed by the other side")
            return
        self.disconnect(client.index, "replaced by a newer connection")
        self._clients[client.index] = client
        self._inbox.put_nowait(Connected(client.index))

    def deliver(self, client: "LoopbackClient", payload: bytes) -> None:
        """Report a frame of a connected client."""
        self._received[client.index] += HEADER_SIZE + len(payload)
        self._inbox.put_nowait(Received(client.index, payload))


class LoopbackClient:
    """A client's end; see ClientTransport. Made by `Network.connect`."""

    def __init__(self, server: LoopbackServer, index: int) -> None:
        """Start connected to `server` as client `index`."""
        self.index = index
        self._server = server
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._connected = True
        self._sent = 0
        self._received = 0
        self._inbox.put_nowait(Connected(SERVER))

    async def next_event(self, timeout: float | None) -> Event | None:
        """Take the oldest event; None when `timeout` seconds pass first (None waits for ever)."""
        return await next_event(self._inbox, timeout)

    def send(self, payload: bytes) -> bool:
        """Deliver one frame; False when the connection is lost.

        Raises FrameError for a payload that is empty or of 4 GiB and more.
        """
        encode_header(len(payload))
        if not self._connected:
            return False
        self._sent += HEADER_SIZE + len(payload)
        self._server.deliver(self, payload)
        return True

    @property
    def bytes_sent(self) -> int:
        """Bytes sent to the server, frame headers included."""
        return self._sent

    @property
    def bytes_received(self) -> int:
        """Bytes received from the server, frame headers included."""
        return self._received

    async def close(self, timeout: float = 5.0) -> None:
        """Close the connection; nothing is ever queued here."""
        if self._connected:
            self._server.disconnect(self.index, "closed by the other side")

    def deliver(self, payload: bytes) -> None:
        """Report a frame of the server."""
        self._received += HEADER_SIZE + len(payload)
        self._inbox.put_nowait(Received(SERVER, payload))

    def lose(self, reason: str) -> None:
        """Report that the connection is gone."""
        self._connected = False
        self._inbox.put_nowait(Lost(SERVER, reason))
