"""What one client cannot do to the others at a server of mphe.net.tcp, over real sockets.

Attack: a client with a valid certificate sends frames that cost more to take than to send, connects
again and again, or claims frames longer than it has any use for.
Claim: it waits its turn behind everybody else, and is held as bytes, few of them.
Weakened: without turns, or with frames cut when they arrive, the tests of this file fail.
"""

import asyncio
import logging
import tracemalloc

import pytest

from mphe.net import tcp
from mphe.net.events import Connected, Lost, Received
from mphe.net.frames import encode_header
from mphe.net.link import MAX_UNREAD
from mphe.net.pace import Pace
from mphe.net.tcp import Connection, Listener, Unreachable
from tests.mphe.net.support import LONG, assert_served, both, close, connect, joined, listen, run
from tests.patience import scaled

SMALL = encode_header(1) + b"x"


def write(client: Connection, data: bytes) -> None:
    """Send bytes as they are."""
    link = client._server.link
    assert link is not None and link._transport is not None
    link._transport.write(data)


async def filled(server: Listener, index: int) -> None:
    """Wait until nothing more comes from a client."""
    before = -1
    while (now := server.bytes_received(index)) != before:
        before = now
        await asyncio.sleep(0.1)


@both
def test_a_frame_waits_for_one_of_each_other_peer(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        flooder, honest = await joined(server, 1, tls), await joined(server, 2, tls)
        write(flooder, 50_000 * SMALL)
        await filled(server, 1)
        for _ in range(3):
            honest.send(b"mine")
            await filled(server, 2)
            events = [await server.next_event(LONG) for _ in range(2)]
            assert Received(2, b"mine") in events
        await flooder.close(timeout=0)
        await close(honest, server)

    run(scenario())


@both
def test_others_are_let_in_between_two_frames(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        flooder = await joined(server, 1, tls)
        write(flooder, 200_000 * SMALL)
        await filled(server, 1)
        coming = asyncio.create_task(connect(server.port, 2, tls))
        taken = 0
        while (event := await server.next_event(LONG)) != Connected(2):
            assert event == Received(1, b"x")
            taken += 1
        assert taken < 10_000  # of those that were there before it came
        await flooder.close(timeout=0)
        await close(await coming, server)

    run(scenario())


@both
def test_frames_wait_as_bytes(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        flooder = await joined(server, 1, tls)
        tracemalloc.start()
        try:
            write(flooder, 200_000 * SMALL)
            await filled(server, 1)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # What the client could not write is held by this process too.
        assert held < 1_000_000 + 4 * MAX_UNREAD + (1 << 20)
        await flooder.close(timeout=0)
        await close(server)

    run(scenario())


@both
def test_connecting_again_and_again_is_told_twice(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        for _ in range(40):
            await (await connect(server.port, 1, tls)).close(timeout=0)
        await asyncio.sleep(0.2)
        events = []
        while (event := await server.next_event(0.1)) is not None:
            events.append(type(event))
        assert events == [Connected, Lost, Connected, Lost]
        client = await joined(server, 1, tls)
        await assert_served(server, client, 1)
        await close(client, server)

    run(scenario())


@both
def test_clients_send_no_longer_frames_than_the_state_allows(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        client, other = await joined(server, 1, tls), await joined(server, 2, tls)
        client.send(bytes(2000))
        assert await server.next_event(LONG) == Received(1, bytes(2000))
        server.limit(1000)
        client.send(bytes(1001))
        lost = await server.next_event(LONG)
        assert isinstance(lost, Lost) and "1001 bytes where at most 1000" in lost.reason
        again = await joined(server, 1, tls)
        again.send(bytes(1000))
        assert await server.next_event(LONG) == Received(1, bytes(1000))
        await assert_served(server, other, 2)
        await close(client, again, other, server)

    run(scenario())


@both
def test_what_was_sent_before_a_disconnection_is_thrown_away(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        flooder = await joined(server, 1, tls)
        write(flooder, 10_000 * SMALL)
        await filled(server, 1)
        assert await server.next_event(LONG) == Received(1, b"x")
        server.disconnect(1, "sent garbage")
        assert await server.next_event(LONG) == Lost(1, "sent garbage")
        assert await server.next_event(0.1) is None
        await close(flooder, server)

    run(scenario())


@both
def test_who_is_barred_is_let_in_when_its_time_is_over(tls: bool) -> None:
    async def scenario() -> None:
        server = await listen(tls)
        server.bar(1, 3600)
        with pytest.raises(Unreachable):
            await connect(server.port, 1, tls, timeout=scaled(0.3))
        other = await joined(server, 2, tls)
        server.bar(1, 0.3)
        client = await joined(server, 1, tls)  # tries until it is let in
        await assert_served(server, client, 1)
        await close(client, other, server)

    run(scenario())


def test_a_thousand_refusals_are_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        server = await listen(tls=False)
        for _ in range(50):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"\0\0\0\0")
            assert await reader.read() == b""
            writer.close()
        await close(server)

    with caplog.at_level(logging.WARNING):
        run(scenario())
    lines = [record for record in caplog.records if "refused a connection" in record.getMessage()]
    assert 1 <= len(lines) < 20


def test_handshakes_are_spread_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is in stays in at the same speed, since handshakes cost more than anything else."""
    monkeypatch.setattr(tcp, "ACCEPT_AT_ONCE", 4)
    monkeypatch.setattr(tcp, "ACCEPT_PER_SECOND", 10.0)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        server, began = await listen(tls=False), loop.time()
        client = await joined(server, 1, tls=False)
        strangers = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(60)]
        for _ in range(5):
            await assert_served(server, client, 1)
            await asyncio.sleep(0.1)
            let_in = len(server._strangers)
            assert let_in <= 4 + 2 * 3 + 10 * (loop.time() - began) + 1
        for _, writer in strangers:
            writer.close()
        await close(client, server)

    run(scenario())


def test_pace() -> None:
    pace = Pace(3, 0.5)
    assert [pace.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert pace.wait(10.0) == 2.0 and not pace.is_rested(10.0)
    assert pace.take(12.0) and not pace.take(12.0)
    assert not pace.is_rested(17.9) and pace.is_rested(18.0)
    assert [pace.take(1000.0) for _ in range(4)] == [True, True, True, False]
