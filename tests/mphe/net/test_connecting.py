"""How a client of mphe.net.tcp finds its server, and what it says when it does not."""

import asyncio

import pytest

from mphe.net.events import Connected
from mphe.net.tcp import AddressError, Connection, Listener, Unreachable, WrongServer
from mphe.net.tls import client_context, fingerprint, new_credentials
from tests.mphe.net.support import (
    CLIENTS,
    LONG,
    MAX_FRAME,
    SERVER,
    both,
    close,
    connect,
    listen,
    run,
    take,
)
from tests.patience import scaled
from tests.ports import free_port


def test_addresses_that_cannot_be_used() -> None:
    async def scenario() -> None:
        server = await listen(tls=False)
        for host, port in (("127.0.0.1", server.port), ("no such host", 0), ("127.0.0.1", 70_000)):
            with pytest.raises(AddressError, match="choose another port") as caught:
                await Listener.listen(host, port, {}, None, MAX_FRAME)
            assert f"{host}:{port}" in str(caught.value)
            assert "\n" not in str(caught.value)
        await close(server)

    run(scenario())


@both
def test_server_that_is_not_there(tls: bool) -> None:
    with pytest.raises(Unreachable, match="check that the server runs there") as caught:
        run(connect(free_port(), 1, tls, timeout=scaled(0.2)))  # type: ignore[arg-type]
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
            await connect(server.port, 1, not tls, timeout=scaled(0.3))
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
            await connect(other.sockets[0].getsockname()[1], 1, tls=False, timeout=scaled(0.2))
        other.close()

    run(scenario())


def test_wrong_server_is_noticed_at_once() -> None:
    async def scenario() -> None:
        server = await listen(tls=True)
        other = new_credentials("server").certificate
        pin = fingerprint(other)
        for trusted in (other, SERVER.certificate):  # by TLS, then by the fingerprint
            context = client_context(CLIENTS[1], trusted)
            with pytest.raises(WrongServer, match="pinned server certificate"):
                await Connection.connect(
                    "127.0.0.1", server.port, 1, context, pin, MAX_FRAME, timeout=LONG
                )
        assert server.connected == set()
        with pytest.raises(ValueError, match="without TLS"):
            await Connection.connect("127.0.0.1", server.port, 1, None, pin, MAX_FRAME, timeout=1)
        await close(server)

    run(scenario())
