"""mphe.net.tcp over real sockets on 127.0.0.1, with and without TLS."""

import asyncio

from mphe.net.events import Connected, Lost, Received
from mphe.net.link import MAX_UNREAD
from mphe.net.tcp import Listener
from tests.mphe.net.support import (
    LONG,
    MAX_FRAME,
    assert_served,
    both,
    close,
    connect,
    joined,
    listen,
    run,
    take,
)

READ_AHEAD = 1 << 19
"""Bytes that asyncio takes at once, twice: TLS has a buffer of its own."""


async def settled(server: Listener, index: int) -> int:
    """What the server has received once nothing more comes."""
    before = -1
    while (now := server.bytes_received(index)) != before:
        before = now
        await asyncio.sleep(0.2)
    return now


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
        assert await server.next_event(LONG) == Lost(1, "sent garbage")
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
        for _ in range(5):
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
        assert await server.next_event(LONG) == Connected(1)
        assert await new.next_event(LONG) == Connected(0)
        await take(old, Lost)
        await assert_served(server, new, 1)
        assert server.bytes_received(1) == 16  # over both connections
        assert await server.next_event(0.05) is None
        await close(old, new, server)

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
        assert await settled(server, 1) < size + MAX_UNREAD + READ_AHEAD
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
            for _ in range(5):
                clients[-1].send(bytes(size))
            await asyncio.sleep(0.05)
        # Of the first connection, and what each of the others brought with its hello.
        assert await settled(server, 1) < size + MAX_UNREAD + READ_AHEAD
        await close(server, *clients)

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
