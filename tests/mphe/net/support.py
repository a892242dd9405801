"""Servers and clients of mphe.net.tcp over real sockets on 127.0.0.1, for the tests."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from mphe.net.events import Connected, Event, Received
from mphe.net.tcp import Connection, Listener
from mphe.net.tls import Credentials, client_context, fingerprint, new_credentials, server_context
from mphe.net.transport import ClientTransport, ServerTransport
from tests.patience import scaled

SERVER = new_credentials("server")
CLIENTS = {index: new_credentials(f"client {index}") for index in (1, 2, 3)}
PEERS = {fingerprint(identity.certificate): index for index, identity in CLIENTS.items()}
MAX_FRAME = 11_000_000
HANG = 60  # seconds after which a test has surely hung, on a quiet machine
LONG = 3600.0  # a limit that is never reached: `run` ends what hangs

both = pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def guarded() -> None:
        async with asyncio.timeout(scaled(HANG)):
            await scenario

    asyncio.run(guarded())


async def listen(
    tls: bool, port: int = 0, trust: list[Credentials] | None = None, **options: Any
) -> Listener:
    trusted = [identity.certificate for identity in trust or CLIENTS.values()]
    context = server_context(SERVER, trusted) if tls else None
    return await Listener.listen("127.0.0.1", port, PEERS, context, MAX_FRAME, **options)


async def connect(
    port: int, index: int, tls: bool, identity: Credentials | None = None, timeout: float = LONG
) -> Connection:
    context = client_context(identity or CLIENTS[index], SERVER.certificate) if tls else None
    pin = fingerprint(SERVER.certificate) if tls else None
    return await Connection.connect("127.0.0.1", port, index, context, pin, MAX_FRAME, timeout)


async def take(transport: ServerTransport | ClientTransport, kind: type[Event]) -> Any:
    event = await transport.next_event(LONG)
    assert isinstance(event, kind), event
    return event


async def joined(server: Listener, index: int, tls: bool) -> Connection:
    client = await connect(server.port, index, tls)
    assert await server.next_event(LONG) == Connected(index)
    assert await client.next_event(LONG) == Connected(0)
    return client


async def assert_served(server: Listener, client: Connection, index: int) -> None:
    """The client and the server still hear each other."""
    assert client.send(b"ping")
    assert await server.next_event(LONG) == Received(index, b"ping")
    assert server.send(index, b"pong")
    assert await client.next_event(LONG) == Received(0, b"pong")


async def close(*transports: ServerTransport | ClientTransport) -> None:
    for transport in transports:
        await transport.close()
