"""Whom a server of mphe.net.tcp lets in, over real sockets on 127.0.0.1."""

import asyncio
import logging
from typing import Any

import pytest

from mphe.net import tcp
from mphe.net.tcp import Listener, Unreachable
from mphe.net.tls import new_credentials
from tests.mphe.net.support import (
    CLIENTS,
    MAX_FRAME,
    assert_served,
    close,
    connect,
    joined,
    listen,
    run,
)
from tests.patience import scaled

EVE = new_credentials("client 1")


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


def test_unknown_certificate_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        server = await listen(tls=True)
        client = await joined(server, 2, tls=True)
        with pytest.raises(Unreachable, match="pins this certificate as client 1"):
            await connect(server.port, 1, True, EVE, timeout=scaled(0.5))
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
            await connect(server.port, 1, True, EVE, timeout=scaled(0.5))
        assert await server.next_event(0) is None
        await close(server)

    run(scenario())
    assert "its certificate is not pinned" in caplog.text


def test_another_clients_index_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        server = await listen(tls=True)
        client = await joined(server, 2, tls=True)
        with pytest.raises(Unreachable):
            await connect(server.port, 2, True, CLIENTS[1], timeout=scaled(0.5))
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
        server = await Listener.listen("127.0.0.1", 0, {}, None, MAX_FRAME)
        await assert_closed(*await raw_connection(server.port, b"\0\0\0\4\0\0\0\0"))
        client = await joined(server, 7, tls=False)
        await assert_served(server, client, 7)
        await close(client, server)

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
        server = await listen(tls, handshake_timeout=scaled(1.0))
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
