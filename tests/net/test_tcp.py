"""net.tcp over real sockets on 127.0.0.1, with and without TLS."""

import asyncio
import logging
import socket
from collections.abc import Coroutine
from typing import Any

import pytest

from net import tcp
from net.events import Connected, Event, Lost, Received
from net.link import MAX_UNREAD
from net.tcp import AddressError, Client, Server, Unreachable, WrongServer
from net.tls import Identity, client_context, fingerprint, new_identity, server_context
from net.transport import ClientTransport, ServerTransport

SERVER = new_identity("server")
CLIENTS = {index: new_identity(f"client {index}") for index in (1, 2, 3)}
EVE = new_identity("client 1")
PEERS = {fingerprint(identity.certificate): index for index, identity in CLIENTS.items()}
MAX_FRAME = 11_000_000
HANG = 60  # seconds after which a test has surely hung

both = pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def guarded() -> None:
        async with asyncio.timeout(HANG):
            await scenario

    asyncio.run(guarded())


async def listen(
    tls: bool, port: int = 0, trust: list[Identity] | None = None, **options: Any
) -> Server:
    trusted = [identity.certificate for identity in trust or CLIENTS.values()]
    context = server_context(SERVER, trusted) if tls else None
    return await Server.listen("127.0.0.1", port, PEERS, context, MAX_FRAME, **options)


async def connect(
    port: int, index: int, tls: bool, identity: Identity | None = None, timeout: float = HANG
) -> Client:
    context = client_context(identity or CLIENTS[index], SERVER.certificate) if tls else None
    pin = fingerprint(SERVER.certificate) if tls else None
    return await Client.connect("127.0.0.1", port, index, context, pin, MAX_FRAME, timeout)


async def take(transport: ServerTransport | ClientTransport, kind: type[Event]) -> Any:
    event = await transport.next_event(HANG)
    assert isinstance(event, kind), event
    return event


async def joined(server: Server, index: int, tls: bool) -> Client:
    client = await connect(server.port, index, tls)
    assert await server.next_event(HANG) == Connected(index)
    assert await client.next_event(HANG) == Connected(0)
    return client


async def assert_served(server: Server, client: Client, index: int) -> None:
    """The client and the server still hear each other."""
    assert client.send(b"ping")
    assert await server.next_event(HANG) == Received(index, b"ping")
    assert server.send(index, b"pong")
    assert await client.next_event(HANG) == Received(0, b"pong")


async def close(*transports: ServerTransport | ClientTransport) -> None:
    for transport in transports:
        await transport.close()


async def settled(server: Server, index: int) -> int:
    """What the server has received once nothing more comes."""
    before = -1
    while (now := server.bytes_received(index)) != before:
        before = now
        await asyncio.sleep(0.2)
    return now


async def raw_connection(port: int, first: bytes = b"") -> tuple[asyncio.StreamReader, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    return reader, writer


async def assert_closed(reader: asyncio.StreamReader, writer: Any) -> None:
    """The server ends this connection."""
    try:
        assert await reader.read() == b""
    except ConnectionError:
        pass
    finally:
        writer.close()


@both
def test_round_trip_and_counters(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        one, two = await joined(server, 1, tls), await joined(server, 2, tls)
        await assert_served(server, two, 2)
        await assert_served(server, one, 1)
        assert server.connected == {1, 2}
        assert (server.bytes_sent(1), server.bytes_received(1)) == (8, 8)
        assert (one.bytes_sent, one.bytes_received) == (8, 8)
        assert not server.send(3, b"x")
        assert server.bytes_sent(3) == server.bytes_received(3) == 0
        assert await server.next_event(0) is None
        assert await one.next_event(0.01) is None
        await close(one, two, server)

    run(scenario())


@both
def test_ten_megabytes_both_ways(tls: bool) -> None:
    payload = bytes(range(250)) * 40_000

    async def scenario() -> None:
        server = await listen(tls)
        client = await joined(server, 1, tls)
        assert server.send(1, payload)
        assert client.send(payload)
        assert (await take(server, Received)).payload == payload
        assert (await take(client, Received)).payload == payload
        assert server.bytes_sent(1) == server.bytes_received(1) == len(payload) + 4
        await close(client, server)

    run(scenario())


@both
def test_last_frames_arrive_before_lost(tls: bool) -> None:
    """A client that sends and leaves at once is heard to its last frame."""
    payloads = [bytes([i]) * (1000 + 50_000 * (i % 7)) for i in range(100)]

    async def scenario() -> None:
        server = await listen(tls)
        client = await joined(server, 1, tls)
        for payload in payloads:
            client.send(payload)

        async def hear() -> list[bytes]:
            return [(await take(server, Received)).payload for _ in payloads]

        heard = asyncio.create_task(hear())
        await client.close()
        assert await heard == payloads
        await take(server, Lost)
        assert not client.send(b"x")
        await close(server)

    run(scenario())


@both
def test_disconnect_sends_what_is_queued(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        client = await joined(server, 1, tls)
        server.send(1, bytes(5_000_000))
        server.send(1, b"goodbye")
        server.disconnect(1, "sent garbage")
        client.send(b"too late")
        assert not server.send(1, b"x")
        assert await server.next_event(HANG) == Lost(1, "sent garbage")
        assert len((await take(client, Received)).payload) == 5_000_000
        assert (await take(client, Received)).payload == b"goodbye"
        await take(client, Lost)
        assert await server.next_event(0.05) is None  # Lost only once, nothing after it
        await close(client, server)

    run(scenario())


@both
def test_disconnect_sends_what_is_queued_to_a_flooding_peer(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        client = await joined(server, 1, tls)
        for _ in range(MAX_UNREAD + 1):
            client.send(bytes(300_000))
        await settled(server, 1)  # the server has stopped reading
        server.send(1, bytes(10_000_000))
        server.disconnect(1, "sent too much")
        assert len((await take(client, Received)).payload) == 10_000_000
        await take(client, Lost)
        await close(client, server)

    run(scenario())


@both
def test_reconnect_replaces(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        old = await joined(server, 1, tls)
        await assert_served(server, old, 1)
        new = await connect(server.port, 1, tls)
        assert "replaced" in (await take(server, Lost)).reason
        assert await server.next_event(HANG) == Connected(1)
        assert await new.next_event(HANG) == Connected(0)
        await take(old, Lost)
        await assert_served(server, new, 1)
        assert server.bytes_received(1) == 16  # over both connections
        assert await server.next_event(0.05) is None
        await close(old, new, server)

    run(scenario())


def test_unknown_certificate_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        server = await listen(tls=True)
        client = await joined(server, 2, tls=True)
        with pytest.raises(Unreachable, match="pins this certificate as client 1"):
            await connect(server.port, 1, True, EVE, timeout=0.5)
        await assert_served(server, client, 2)
        assert server.connected == {2}
        await close(client, server)

    run(scenario())
    assert "refused a connection from 127.0.0.1" in caplog.text


def test_certificate_must_be_a_peers_even_if_the_context_trusts_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        server = await listen(tls=True, trust=[EVE])
        with pytest.raises(Unreachable):
            await connect(server.port, 1, True, EVE, timeout=0.5)
        assert await server.next_event(0) is None
        await close(server)

    run(scenario())
    assert "its certificate is not pinned" in caplog.text


def test_another_clients_index_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        server = await listen(tls=True)
        client = await joined(server, 2, tls=True)
        with pytest.raises(Unreachable):
            await connect(server.port, 2, True, CLIENTS[1], timeout=0.5)
        await assert_served(server, client, 2)
        assert server.connected == {2}
        await close(client, server)

    run(scenario())
    assert "client 1 says that it is client 2" in caplog.text


@pytest.mark.parametrize(
    "first",
    [
        b"\0\0\0\4\0\0\0\0",  # the server's own index
        b"\0\0\0\4\0\0\0\7",  # nobody's index
        b"\0\0\0\1\1",
        b"\0\0\0\0",
        b"\0\0\0\5\0\0\0\0\1",  # too long for a hello
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\4\0\0\0\1\0\1\0\0",  # speaks before it was let in
        b"\0\0\0\1\1" + b"\0\0\0\4\0\0\0\1",  # no second try on one connection
    ],
)
def test_no_hello_no_entry(first: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        server = await listen(tls=False)
        await assert_closed(*await raw_connection(server.port, first))
        client = await joined(server, 2, tls=False)
        await assert_served(server, client, 2)
        await close(client, server)

    run(scenario())
    assert "refused a connection" in caplog.text


def test_any_client_is_believed_without_tls_and_peers() -> None:
    async def scenario() -> None:
        server = await Server.listen("127.0.0.1", 0, {}, None, MAX_FRAME)
        await assert_closed(*await raw_connection(server.port, b"\0\0\0\4\0\0\0\0"))
        client = await joined(server, 7, tls=False)
        await assert_served(server, client, 7)
        await close(client, server)

    run(scenario())


@both
def test_wrong_frame_costs_only_its_sender(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        bad, good = await joined(server, 1, tls), await joined(server, 2, tls)
        bad.send(bytes(MAX_FRAME + 1))
        assert "at most 11000000" in (await take(server, Lost)).reason
        await take(bad, Lost)
        await assert_served(server, good, 2)
        await close(bad, good, server)

    run(scenario())


@both
def test_hung_peer_is_dropped_before_it_eats_memory(tls: bool) -> None:
    """A client that takes no events stops reading, so the server's frames pile up."""
    frame = bytes(1 << 20)

    async def scenario() -> None:
        server = await listen(tls, send_buffer_limit=4 << 20)
        hung, good = await joined(server, 1, tls), await joined(server, 2, tls)
        for _ in range(200):
            if not server.send(1, frame):
                break
            await asyncio.sleep(0.001)
        assert "does not read" in (await take(server, Lost)).reason
        assert server.connected == {2}
        await assert_served(server, good, 2)
        await close(hung, good, server)

    run(scenario())


@both
def test_one_frame_may_exceed_the_send_buffer_limit(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls, send_buffer_limit=1000)
        client = await joined(server, 1, tls)
        assert server.send(1, bytes(10_000_000))
        assert len((await take(client, Received)).payload) == 10_000_000
        await close(client, server)

    run(scenario())


@both
def test_flooding_peer_waits_until_its_frames_are_taken(tls: bool) -> None:
    count, size = 100, 300_000

    async def scenario() -> None:
        server = await listen(tls)
        client = await joined(server, 1, tls)
        for i in range(count):
            client.send(bytes([i]) * size)
        assert await settled(server, 1) < (MAX_UNREAD + 4) * size  # TLS reads a bit ahead
        for i in range(count):
            assert (await take(server, Received)).payload == bytes([i]) * size
        await close(client, server)

    run(scenario())


@both
def test_reconnecting_is_no_way_around_that_limit(tls: bool) -> None:
    size = 300_000

    async def scenario() -> None:
        server = await listen(tls)
        clients = []
        for _ in range(12):
            clients.append(await connect(server.port, 1, tls))
            for _ in range(MAX_UNREAD + 1):
                clients[-1].send(bytes(size))
            await asyncio.sleep(0.05)
        assert await settled(server, 1) < (MAX_UNREAD + 4) * size
        await close(server, *clients)

    run(scenario())


def test_slow_and_idle_strangers_do_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)

    async def dribble(port: int) -> None:
        reader, writer = await raw_connection(port)
        for byte in b"\0\0\0\4\0\0\0":
            writer.write(bytes([byte]))
            await asyncio.sleep(0.2)
        await assert_closed(reader, writer)

    async def scenario(tls: bool) -> None:
        server = await listen(tls, handshake_timeout=1.0)
        slow = asyncio.create_task(dribble(server.port))
        idle = [await raw_connection(server.port) for _ in range(200)]
        client = await joined(server, 2, tls)
        await assert_served(server, client, 2)
        await asyncio.gather(slow, *(assert_closed(*stranger) for stranger in idle))
        await assert_served(server, client, 2)  # who is in, stays in
        await close(client, server)

    run(scenario(tls=True))
    run(scenario(tls=False))


def test_oldest_stranger_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "MAX_STRANGERS", 5)

    async def scenario() -> None:
        server = await listen(tls=True)
        strangers = [await raw_connection(server.port) for _ in range(6)]
        await assert_closed(*strangers[0])
        client = await joined(server, 1, tls=True)
        await assert_closed(*strangers[1])
        await assert_served(server, client, 1)
        await close(client, server)
        for stranger in strangers[2:]:
            await assert_closed(*stranger)

    run(scenario())


def test_addresses_that_cannot_be_used() -> None:
    async def scenario() -> None:
        server = await listen(tls=False)
        for host, port in (("127.0.0.1", server.port), ("no such host", 0), ("127.0.0.1", 70_000)):
            with pytest.raises(AddressError, match="choose another port") as caught:
                await Server.listen(host, port, {}, None, MAX_FRAME)
            assert f"{host}:{port}" in str(caught.value)
            assert "\n" not in str(caught.value)
        await close(server)

    run(scenario())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@both
def test_server_that_is_not_there(tls: bool) -> None:
    with pytest.raises(Unreachable, match="check that the server runs there") as caught:
        run(connect(free_port(), 1, tls, timeout=0.2))  # type: ignore[arg-type]
    assert "refused" in str(caught.value).lower() or "connect" in str(caught.value).lower()


def test_port_that_does_not_exist() -> None:
    with pytest.raises(Unreachable, match="1 to 65535"):
        run(connect(70_000, 1, tls=False))  # type: ignore[arg-type]


@both
def test_server_may_start_later(tls: bool) -> None:
    async def scenario() -> None:
        port = free_port()
        connecting = asyncio.create_task(connect(port, 1, tls))
        await asyncio.sleep(0.1)
        server = await listen(tls, port)
        client = await connecting
        await take(server, Connected)
        await close(client, server)

    run(scenario())


@both
def test_one_side_without_tls(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        with pytest.raises(Unreachable, match="both sides use TLS or neither"):
            await connect(server.port, 1, not tls, timeout=0.3)
        await close(server)

    run(scenario())


def test_something_else_that_answers() -> None:
    async def scenario() -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"\0\0\0\4SMTP")
            await reader.read()
            writer.close()

        other = await asyncio.start_server(greet, "127.0.0.1", 0)
        with pytest.raises(Unreachable, match="does not speak this protocol"):
            await connect(other.sockets[0].getsockname()[1], 1, tls=False, timeout=0.2)
        other.close()

    run(scenario())


def test_wrong_server_is_noticed_at_once() -> None:
    async def scenario() -> None:
        server = await listen(tls=True)
        other = new_identity("server").certificate
        pin = fingerprint(other)
        for trusted in (other, SERVER.certificate):  # by TLS, then by the fingerprint
            context = client_context(CLIENTS[1], trusted)
            with pytest.raises(WrongServer, match="pinned server certificate"):
                await Client.connect(
                    "127.0.0.1", server.port, 1, context, pin, MAX_FRAME, timeout=10 * HANG
                )
        assert server.connected == set()
        with pytest.raises(ValueError, match="without TLS"):
            await Client.connect("127.0.0.1", server.port, 1, None, pin, MAX_FRAME, timeout=1)
        await close(server)

    run(scenario())


@both
def test_closing_does_not_wait_for_a_hung_peer(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        client = await joined(server, 1, tls)
        for _ in range(30):
            server.send(1, bytes(1_000_000))
        await server.close(timeout=0.2)
        await client.close(timeout=0.2)

    run(scenario())


@both
def test_closing_again_and_beside_the_other_side_is_harmless(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        client = await joined(server, 1, tls)
        # Both at once: each finds its transport half closed by the other.
        await asyncio.gather(server.close(), client.close())
        await client.close()
        await server.close()

    run(scenario())


@both
def test_a_client_may_close_in_any_moment_of_the_servers_farewell(tls: bool) -> None:
    async def scenario() -> None:
        for yields in range(12):
            server = await listen(tls)
            client = await joined(server, 1, tls)
            server.send(1, b"farewell")
            closing = asyncio.create_task(server.close())
            for _ in range(yields):
                await asyncio.sleep(0)
            await client.close()
            await closing

    run(scenario())
