"""Training goes on over real TCP with TLS while somebody on the network does their worst.

Server, clients and attackers share this process and 127.0.0.1. The model is a fake; the protocol,
the loops of server and clients and the transport are real.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mphe
from fl.config.configs import Config
from fl.run.client import ClientWork
from mphe.net.frames import encode_header
from mphe.net.tcp import Connection, Listener, Unreachable
from mphe.net.tls import (
    Credentials,
    client_context,
    fingerprint,
    new_credentials,
    public_key,
    server_context,
)
from mphe.run.session import ClientSession
from mphe.wire import codec
from mphe.wire.messages import Contribution
from mphe.wire.sizes import longest_of_client
from tests.fl import federation
from tests.fl.federation import (
    SIZE,
    FakeLearner,
    Outcome,
    Real,
    agreement_of,
    expected_weights,
    flags,
    plan_of,
)
from tests.patience import flag, scaled, wait_until

HOST = "127.0.0.1"
SERVER = new_credentials("server")
CLIENTS = {index: new_credentials(f"client {index}") for index in (1, 2, 3, 4)}
KEYS = {index: public_key(identity.certificate) for index, identity in CLIENTS.items()}
MALLORY = new_credentials("client 2")
EVERYBODY = 3 * [(1, 2, 3, 4)]
HANG = 120

Moves = Callable[[], tuple[int, ...]]
"""Returns numbers that grow as an attack goes on."""
Attack = Callable[[int], AbstractAsyncContextManager[Moves]]
"""Takes the server's port; under way inside of the block; asserts at its end that it was."""
Wrap = Callable[[int, Connection], Any]
"""(index, transport) → the transport that this client uses."""


async def connect(
    port: int, index: int, identity: Credentials, timeout: float = HANG
) -> Connection:
    context = client_context(identity, SERVER.certificate)
    pin = fingerprint(SERVER.certificate)
    return await Connection.connect(HOST, port, index, context, pin, 1 << 24, timeout)


# -- the federation --------------------------------------------------------------------------------


async def take_part(args: Config, port: int, index: int, wrap: Wrap, moves: Moves) -> None:
    """Be a client until training is over; an update takes until the attack has gone on."""

    def dawdle(index: int, round: int) -> None:
        before = moves()
        wait_until(
            lambda: all(now > then for now, then in zip(moves(), before, strict=True)),
            lambda: f"the attack does not go on: {before}",
        )

    transport = await connect(port, index, CLIENTS[index])
    learner: Any = FakeLearner(args, index, dawdle)
    identity = mphe.Identity(CLIENTS[index].private_key)
    plan = plan_of(args, SIZE)
    party = mphe.Client(index, plan.session, identity, KEYS)
    session = ClientSession(party, wrap(index, transport), ClientWork(learner))
    session.start()
    try:
        await session.run()
    finally:
        await transport.close()


async def federate(args: Config, attack: Attack, wrap: Wrap) -> Outcome:
    """Run server and clients to the end, the attack beside them."""
    plan, agreement = plan_of(args, SIZE), agreement_of(args, SIZE, mphe.Roster(KEYS))
    pins = {fingerprint(identity.certificate): index for index, identity in CLIENTS.items()}
    context = server_context(SERVER, [identity.certificate for identity in CLIENTS.values()])
    frame = longest_of_client(plan, is_open=False)
    patient = scaled(HANG)  # with whom says nothing, all the while
    server = await Listener.listen(HOST, 0, pins, context, frame, handshake_timeout=patient)
    async with attack(server.port) as moves:
        clients = [
            asyncio.create_task(take_part(args, server.port, i, wrap, moves)) for i in CLIENTS
        ]
        network: Any = SimpleNamespace(server=server)
        try:
            outcome = await federation._serve(args, network, agreement, lambda *_: None, Real())
        finally:
            done = await asyncio.gather(*clients, return_exceptions=True)
    await server.close()
    assert done == [None] * len(CLIENTS)
    return outcome


def train(path: Path, attack: Attack, *more: str, wrap: Wrap = lambda _, client: client) -> Outcome:
    """Return how training went beside an attack."""

    async def guarded() -> Outcome:
        async with asyncio.timeout(scaled(HANG)):
            words = ["--resiliency", "0.5", "--round_timeout", flag(60), *more]
            return await federate(flags(path, *words), attack, wrap)

    return asyncio.run(guarded())


def assert_trained(outcome: Outcome, path: Path, counted: Sequence[tuple[int, ...]]) -> None:
    """All rounds were run, with these contributors, and the model is right."""
    assert [record.contributors for record in outcome.history.records] == list(counted)
    assert [record.abandoned for record in outcome.history.records] == [None] * len(counted)
    assert np.allclose(outcome.weights, expected_weights(flags(path), counted), atol=2e-5)


# -- attacks ---------------------------------------------------------------------------------------


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run something until the block ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def one_byte_a_second(port: int) -> AsyncIterator[Moves]:
    """Begin a TLS record and never get to its end."""
    reader, writer = await asyncio.open_connection(HOST, port)
    sent = 0

    async def dribble() -> None:
        nonlocal sent
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500):
            writer.write(bytes([byte]))
            sent += 1
            await asyncio.sleep(1)

    try:
        async with beside(dribble()):
            yield lambda: (sent,)
        assert sent >= 2 and not reader.at_eof()
    finally:
        await hang_up(writer)


@asynccontextmanager
async def idle_connections(port: int) -> AsyncIterator[Moves]:
    """Open 300 connections and say nothing."""
    idle = [await asyncio.open_connection(HOST, port) for _ in range(300)]
    asked = itertools.count()  # there is nothing to wait for
    try:
        yield lambda: (next(asked),)
        assert not any(reader.at_eof() for reader, _ in idle)
    finally:
        for _, writer in idle:
            await hang_up(writer)


GARBAGE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    bytes(1000),
    b"\xff" * 1000,
    b"\x16\x03\x01\xff\xff" + b"\xff" * 70_000,
    b"\0\0\0\4\0\0\0\1",
    b"\x80" + bytes(range(256)) * 20,
)


@asynccontextmanager
async def garbage_before_the_handshake(port: int) -> AsyncIterator[Moves]:
    """Connect again and again, and send what is no TLS."""
    refused = 0

    async def shout() -> None:
        nonlocal refused
        while True:
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(GARBAGE[refused % len(GARBAGE)])
                with contextlib.suppress(ConnectionError):
                    # An alert may come before the end.
                    await reader.read()
                refused += 1
            finally:
                writer.close()
            await asyncio.sleep(0.01)

    async with beside(shout()):
        yield lambda: (refused // len(GARBAGE),)
    assert refused > len(GARBAGE)


@asynccontextmanager
async def refused_client(port: int, index: int, identity: Credentials) -> AsyncIterator[Moves]:
    """Try to be client `index` with this certificate, again and again."""
    refused = 0

    async def knock() -> None:
        nonlocal refused
        while True:
            with pytest.raises(Unreachable):
                await connect(port, index, identity, timeout=scaled(0.3))
            refused += 1

    async with beside(knock()):
        yield lambda: (refused,)
    assert refused >= 2


def unpinned_certificate(port: int) -> AbstractAsyncContextManager[Moves]:
    """Use a certificate of the right name that nobody pinned."""
    return refused_client(port, 2, MALLORY)


def another_clients_index(port: int) -> AbstractAsyncContextManager[Moves]:
    """Use client 4's certificate and say that it is client 3's."""
    return refused_client(port, 3, CLIENTS[4])


@asynccontextmanager
async def all_at_once(port: int) -> AsyncIterator[Moves]:
    async with AsyncExitStack() as stack:
        moves = [await stack.enter_async_context(attack(port)) for attack in ATTACKS]
        yield lambda: tuple(number for move in moves for number in move())


ATTACKS: tuple[Attack, ...] = (
    one_byte_a_second,
    idle_connections,
    garbage_before_the_handshake,
    unpinned_certificate,
    another_clients_index,
)


@pytest.mark.parametrize("attack", [*ATTACKS, all_at_once], ids=lambda attack: attack.__name__)
def test_strangers_stop_no_round(
    attack: Attack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert_trained(train(tmp_path, attack), tmp_path, EVERYBODY)
    if attack is another_clients_index:
        assert "client 4 says that it is client 3" in caplog.text


# -- an attacker that is on the roster -------------------------------------------------------------


class Dribbling:
    """The transport of a client that sends its second contribution a byte a second."""

    def __init__(self, client: Connection) -> None:
        self._client = client
        self._stuck = False
        self.sent = 0

    async def next_event(self, timeout: float | None) -> Any:
        return await self._client.next_event(timeout)

    def send(self, payload: bytes) -> bool:
        message = codec.decode(payload, 4)
        if isinstance(message, Contribution) and message.round == 2:
            self._stuck = True
            self._task = asyncio.create_task(self._dribble(encode_header(len(payload)) + payload))
        return self._stuck or self._client.send(payload)

    async def _dribble(self, frame: bytes) -> None:
        for byte in frame:
            link = self._client._server.link
            if link is None or link._transport is None:
                break
            link._transport.write(bytes([byte]))
            self.sent += 1
            await asyncio.sleep(1)


@asynccontextmanager
async def no_attack(_: int) -> AsyncIterator[Moves]:
    yield tuple


def test_a_client_of_one_byte_a_second_costs_its_own_place_only(tmp_path: Path) -> None:
    slow: list[Dribbling] = []

    def wrap(index: int, client: Connection) -> Any:
        if index != 4:
            return client
        slow.append(Dribbling(client))
        return slow[0]

    outcome = train(tmp_path, no_attack, "--round_timeout", flag(2), wrap=wrap)
    assert_trained(outcome, tmp_path, [(1, 2, 3, 4), (1, 2, 3), (1, 2, 3)])
    assert slow[0].sent >= 2
