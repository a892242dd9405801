"""mphe.net.loopback: the same events and counters as TCP, in one process."""

import asyncio

import pytest

from mphe.net.events import Connected, Lost, Received
from mphe.net.frames import FrameError
from mphe.net.loopback import Network
from mphe.net.transport import ClientTransport, ServerTransport


def test_round_trip_and_counters() -> None:
    async def scenario() -> None:
        network = Network()
        server: ServerTransport = network.server
        client: ClientTransport = network.connect(3)
        assert await server.next_event(None) == Connected(3)
        assert await client.next_event(None) == Connected(0)
        assert client.send(b"hello")
        assert await server.next_event(None) == Received(3, b"hello")
        assert server.send(3, b"you")
        assert await client.next_event(None) == Received(0, b"you")
        assert (client.bytes_sent, client.bytes_received) == (9, 7)
        assert (server.bytes_received(3), server.bytes_sent(3)) == (9, 7)
        assert server.connected == {3}

    asyncio.run(scenario())


def test_time_out_gives_none() -> None:
    async def scenario() -> None:
        network = Network()
        assert await network.server.next_event(0) is None
        assert await network.server.next_event(0.01) is None

    asyncio.run(scenario())


def test_cut_is_seen_on_both_ends() -> None:
    async def scenario() -> None:
        network = Network()
        client, other = network.connect(1), network.connect(2)
        network.cut(1)
        events = [await network.server.next_event(0) for _ in range(4)]
        assert events == [Connected(1), Connected(2), Lost(1, "connection cut"), None]
        assert await client.next_event(0) == Connected(0)
        assert isinstance(await client.next_event(0), Lost)
        assert not client.send(b"x")
        assert not network.server.send(1, b"x")
        assert other.send(b"x")
        assert network.server.connected == {2}

    asyncio.run(scenario())


def test_a_new_connection_replaces_the_old_one_and_keeps_the_totals() -> None:
    async def scenario() -> None:
        network = Network()
        old = network.connect(1)
        old.send(b"one")
        new = network.connect(1)
        new.send(b"two")
        kinds = [type(await network.server.next_event(0)) for _ in range(5)]
        assert kinds == [Connected, Received, Lost, Connected, Received]
        assert not old.send(b"x")
        assert network.server.bytes_received(1) == 14

    asyncio.run(scenario())


def test_closing_and_errors() -> None:
    async def scenario() -> None:
        network = Network()
        client = network.connect(1)
        with pytest.raises(FrameError):
            client.send(b"")
        with pytest.raises(FrameError):
            network.server.send(1, b"")
        await client.close()
        await client.close()
        assert network.server.connected == set()
        late = network.connect(1)
        await network.server.close()
        assert not late.send(b"x")

    asyncio.run(scenario())
