"""Frames over TCP, with or without TLS: one Listener, many Connections.

On every connection the client's first frame is its index and the server's first frame is 0,
which tells the client that it was let in. Nothing else may be sent before.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping, Set
from typing import Self

from mphe.net.events import Event
from mphe.net.inbox import Inbox
from mphe.net.link import HELLO_SIZE, Link, describe
from mphe.net.pace import Pace
from mphe.net.peer import Peer
from mphe.net.tls import fingerprint
from mphe.net.transport import SERVER

log = logging.getLogger(__name__)

BACKLOG = 1024
MAX_STRANGERS = 512  # connections not yet identified; beyond it the oldest makes room
ACCEPT_PAUSE = 1.0  # seconds to wait when the system has no free file descriptor
ACCEPT_AT_ONCE, ACCEPT_PER_SECOND = 128, 50.0  # a handshake costs a millisecond or two
REFUSALS_AT_ONCE, REFUSALS_PER_SECOND = 8, 1 / 30  # lines of the log
FLUSH_SECONDS = 5.0  # for what is queued to a peer that is disconnected
FIRST_RETRY, LAST_RETRY = 0.05, 1.0  # seconds between a client's attempts


class AddressError(OSError):
    """The server cannot listen where it was told to."""


class Unreachable(OSError):
    """The client could not reach the server, or was not let in, within its time."""


class WrongServer(OSError):
    """Whoever answers at the server's address does not own the pinned certificate."""


def _hello(index: int) -> bytes:
    return index.to_bytes(HELLO_SIZE, "big")


class Listener:
    """Accepts clients and speaks to each under its peer index; see ServerTransport."""

    def __init__(
        self,
        listener: socket.socket,
        peers: Mapping[bytes, int],
        context: ssl.SSLContext | None,
        max_frame: int,
        send_buffer_limit: int,
        handshake_timeout: float,
    ) -> None:
        """Use `Listener.listen` instead."""
        self._listener = listener
        self._certificates = peers
        self._context = context
        self._max_frame = max_frame
        self._send_buffer_limit = send_buffer_limit
        self._handshake_timeout = handshake_timeout
        self._inbox = Inbox()
        self._peers: dict[int, Peer] = {}
        self._barred: dict[int, float] = {}
        self._links: set[Link] = set()
        # Everybody on the list may come twice at once, and that many that are not on it.
        self._accepted = Pace(ACCEPT_AT_ONCE + 2 * len(peers), ACCEPT_PER_SECOND)
        self._refusals = Pace(REFUSALS_AT_ONCE, REFUSALS_PER_SECOND)
        self._unsaid = 0
        self._strangers: dict[asyncio.Task[None], None] = {}  # a dict keeps them by age
        self._accepting = asyncio.create_task(self._accept())

    @classmethod
    async def listen(
        cls,
        host: str,
        port: int,
        peers: Mapping[bytes, int],
        context: ssl.SSLContext | None,
        max_frame: int,
        send_buffer_limit: int = 64 << 20,
        handshake_timeout: float = 10.0,
    ) -> Self:
        """Start to accept clients; port 0 takes a free one, see `port`.

        `peers` maps certificate fingerprints to indices. Without a context clients are believed
        what index they claim, as long as it is in `peers` (or `peers` is empty).
        `max_frame` and `send_buffer_limit` are in bytes, `handshake_timeout` in seconds.

        Raises AddressError when the address is taken or is none of this machine's.
        """
        try:
            if not 0 <= port < 1 << 16:  # getaddrinfo would take it modulo 65536
                raise OSError("a port is 0 to 65535")
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, _, _, _, address = found[0]
            listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
        except (OSError, UnicodeError) as error:
            raise AddressError(
                f"cannot listen on {host}:{port} ({error}); choose another port, stop the program "
                "that uses this one, or name an address of this machine"
            ) from error
        listener.setblocking(False)
        return cls(listener, peers, context, max_frame, send_buffer_limit, handshake_timeout)

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return int(self._listener.getsockname()[1])

    @property
    def connected(self) -> Set[int]:
        """The peers that frames can be sent to now."""
        return {index for index, peer in self._peers.items() if peer.link is not None}

    async def next_event(self, timeout: float | None) -> Event | None:
        """Take an event, of each peer in turn; None when `timeout` seconds pass first.

        None waits for ever.
        """
        return await self._inbox.next_event(timeout)

    def limit(self, max_frame: int) -> None:
        """Change how long the frames of clients may be, in bytes."""
        self._max_frame = max_frame
        for peer in self._peers.values():
            peer.limit(max_frame)

    def send(self, peer: int, payload: bytes) -> bool:
        """Queue one frame and return at once; False when the peer is not connected.

        A peer for which more than `send_buffer_limit` bytes wait already is dropped: it hangs
        or is too slow, and must not eat the server's memory. One frame may be longer than the
        limit. Raises FrameError for a payload that is empty or of 4 GiB and more.
        """
        known = self._peers.get(peer)
        if known is None or known.link is None:
            return False
        if known.link.unsent > self._send_buffer_limit:
            known.drop(f"does not read: more than {self._send_buffer_limit} bytes wait unsent")
            return False
        known.link.send(payload)
        return True

    def bytes_sent(self, peer: int) -> int:
        """Bytes sent to the peer over all its connections, frame headers included.

        Counted as they are handed to asyncio: queued frames, hellos and what TLS adds are not.
        """
        return self._peers[peer].traffic.sent if peer in self._peers else 0

    def bytes_received(self, peer: int) -> int:
        """Bytes received from the peer over all its connections; see bytes_sent."""
        return self._peers[peer].traffic.received if peer in self._peers else 0

    def disconnect(self, peer: int, reason: str) -> None:
        """Send what is queued for the peer, then close; Lost is reported at once."""
        if peer in self._peers:
            self._peers[peer].drop(reason, FLUSH_SECONDS)

    def bar(self, peer: int, seconds: float) -> None:
        """Refuse new connections of the peer for so long; that one may not be there any more."""
        self._barred[peer] = asyncio.get_running_loop().time() + seconds

    async def close(self, timeout: float = 5.0) -> None:
        """Stop; spend at most `timeout` seconds on sending what is queued."""
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        self._listener.close()
        for stranger in self._strangers:
            stranger.cancel()
        await asyncio.gather(*self._strangers, return_exceptions=True)
        for peer in self._peers.values():
            peer.drop("the server closes", timeout)
        await _finish_all(self._links, timeout)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Who is in stays in, at the same speed, however many want to come in.
            while (pause := self._accepted.wait(loop.time())) > 0:
                await asyncio.sleep(pause)
            try:
                sock, address = await loop.sock_accept(self._listener)
            except OSError as error:
                log.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            self._accepted.take(loop.time())
            if len(self._strangers) >= MAX_STRANGERS:
                next(iter(self._strangers)).cancel()
            task = asyncio.create_task(self._greet(sock, f"{address[0]}:{address[1]}"))
            self._strangers[task] = None
            task.add_done_callback(self._strangers.pop)
            await asyncio.sleep(0)  # so the task takes charge of the socket before anything else

    async def _greet(self, sock: socket.socket, address: str) -> None:
        link = Link(self._on_hello, HELLO_SIZE)
        self._links.add(link)
        link.closed.add_done_callback(lambda _: self._links.discard(link))
        try:
            async with asyncio.timeout(self._handshake_timeout):
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: link, sock, ssl=self._context
                )
                await link.greeted
        except OSError as error:  # TLS refusals and time-outs are among them
            self._say_refused(address, describe(error))
        finally:
            if link.owner is None:
                link.abort("not identified")

    def _say_refused(self, address: str, reason: str) -> None:
        """Log a refusal, unless there are so many that the log would be full of them."""
        self._unsaid += 1
        if self._refusals.take(asyncio.get_running_loop().time()):
            more = f" (and {self._unsaid - 1:,} before)" if self._unsaid > 1 else ""
            log.warning("refused a connection from %s: %s%s", address, reason, more)
            self._unsaid = 0

    def _on_hello(self, link: Link, payload: bytes) -> None:
        index = self._identify(link.certificate, payload)
        left = self._barred.get(index, 0.0) - asyncio.get_running_loop().time()
        if left > 0:
            raise ConnectionRefusedError(f"client {index} is not let in for another {left:.3g} s")
        if link.reader.held:
            raise ConnectionRefusedError("it speaks before it was let in")
        link.send(_hello(SERVER))
        peer = self._peers.setdefault(index, Peer(index, self._inbox))
        peer.attach(link, self._max_frame)

    def _identify(self, certificate: bytes | None, payload: bytes) -> int:
        index = int.from_bytes(payload, "big")
        if len(payload) != HELLO_SIZE or index == SERVER:
            raise ConnectionRefusedError("its hello is not a client's index")
        if self._context is None:
            if self._certificates and index not in self._certificates.values():
                raise ConnectionRefusedError(f"there is no client {index}")
            return index
        # TLS has checked the certificate against the same pins; this makes sure of the index.
        owner = self._certificates.get(fingerprint(certificate)) if certificate else None
        if owner is None:
            raise ConnectionRefusedError("its certificate is not pinned")
        if owner != index:
            raise ConnectionRefusedError(f"client {owner} says that it is client {index}")
        return index


class Connection:
    """A client's connection to the server (peer 0); see ClientTransport.

    A lost connection stays lost; connect anew to go on.
    """

    def __init__(self, max_frame: int) -> None:
        """Use `Connection.connect` instead."""
        self._max_frame = max_frame
        self._inbox = Inbox()
        self._server = Peer(SERVER, self._inbox)
        self._links: set[Link] = set()

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        index: int,
        context: ssl.SSLContext | None,
        server_fingerprint: bytes | None,
        max_frame: int,
        timeout: float,
    ) -> Self:
        """Connect as client `index`, and try again until `timeout` seconds have passed.

        Returns once the server has let the client in; the first event is then Connected.
        Raises Unreachable when time is up, WrongServer at once when the server's certificate
        is not the pinned one, ValueError for a fingerprint without a TLS context.
        """
        if server_fingerprint is not None and context is None:
            raise ValueError("a server fingerprint means nothing without TLS; pass a context")
        if not 0 < port < 1 << 16:
            raise Unreachable(f"{host}:{port} is no address; a port is 1 to 65535")
        client = cls(max_frame)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        pause = FIRST_RETRY
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await client._attempt(host, port, index, context, server_fingerprint)
                return client
            except WrongServer:
                raise
            except OSError as error:
                reason = describe(error)
            if loop.time() + pause >= deadline:
                raise Unreachable(_unreachable(host, port, index, timeout, reason))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_RETRY)

    async def next_event(self, timeout: float | None) -> Event | None:
        """Take the oldest event; None when `timeout` seconds pass first (None waits for ever)."""
        return await self._inbox.next_event(timeout)

    def send(self, payload: bytes) -> bool:
        """Queue one frame and return at once; False when the connection is lost.

        Raises FrameError for a payload that is empty or of 4 GiB and more.
        """
        if self._server.link is None:
            return False
        self._server.link.send(payload)
        return True

    @property
    def bytes_sent(self) -> int:
        """Bytes sent to the server, frame headers included; see Listener.bytes_sent."""
        return self._server.traffic.sent

    @property
    def bytes_received(self) -> int:
        """Bytes received from the server, frame headers included; see Listener.bytes_sent."""
        return self._server.traffic.received

    async def close(self, timeout: float = 5.0) -> None:
        """Stop; spend at most `timeout` seconds on sending what is queued."""
        self._server.drop("the client closes", timeout)
        await _finish_all(self._links, timeout)

    async def _attempt(
        self, host: str, port: int, index: int, context: ssl.SSLContext | None, pin: bytes | None
    ) -> None:
        link = Link(self._on_hello, self._max_frame)
        self._links.add(link)
        link.closed.add_done_callback(lambda _: self._links.discard(link))
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: link, host, port, ssl=context)
            certificate = link.certificate
            if pin is not None and (certificate is None or fingerprint(certificate) != pin):
                raise WrongServer(_wrong_server(host, port, "another fingerprint"))
            link.send(_hello(index))
            await link.greeted
        except ssl.SSLCertVerificationError as error:
            raise WrongServer(_wrong_server(host, port, error.verify_message)) from error
        finally:
            if link.owner is None:
                link.abort("not let in")

    def _on_hello(self, link: Link, payload: bytes) -> None:
        if payload != _hello(SERVER):
            raise ConnectionRefusedError("what answers does not speak this protocol")
        self._server.attach(link, self._max_frame)


async def _finish_all(links: set[Link], timeout: float) -> None:
    closed = [link.closed for link in links]
    for link in list(links):
        link.finish(timeout)
    if closed:
        await asyncio.wait(closed)


def _wrong_server(host: str, port: int, detail: str) -> str:
    return (
        f"{host}:{port} does not show the pinned server certificate ({detail}); check the address, "
        "or get the server's present certificate from whoever runs it"
    )


def _unreachable(host: str, port: int, index: int, timeout: float, reason: str) -> str:
    return (
        f"client {index} was not let in at {host}:{port} within {timeout:g} s ({reason}); check "
        "that the server runs there, that both sides use TLS or neither does, and that the server "
        f"pins this certificate as client {index}"
    )
