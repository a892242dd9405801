"""A whole session of a client over TCP and TLS, round after round."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mphe.client import Client
from mphe.net.tcp import Connection
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import Plan, make_plan
from mphe.run.credentials import Parties
from mphe.run.session import ClientSession, follow
from mphe.run.store import ClientStore
from mphe.run.vault import Vault
from mphe.wire.sizes import longest_of_server

CLOSE_SECONDS = 5.0
LONGEST_MODEL = 1 << 30


class Round:
    """A round that waits for this client's update.

    Attributes:
        number: from 1.
        model: opaque bytes of the server.
    """

    def __init__(self, number: int, model: bytes) -> None:
        self.number = number
        self.model = model
        self._integers: asyncio.Future[NDArray[Any] | None] = asyncio.Future()

    def contribute(self, integers: NDArray[Any] | None) -> None:
        """Send an update, integers (length,) in [0, 2^value_bits); None sits the round out."""
        if not self._integers.done():
            self._integers.set_result(integers)

    async def integers(self) -> NDArray[Any] | None:
        """Return what is contributed, as soon as it is known."""
        return await self._integers


class _Handed:
    """A client's work, handed to whoever iterates."""

    def __init__(self) -> None:
        self.rounds: asyncio.Queue[Round] = asyncio.Queue()

    async def update(self, round: int, model: bytes) -> NDArray[Any] | None:
        begun = Round(round, model)
        self.rounds.put_nowait(begun)
        return await begun.integers()

    def metrics(self, encrypt_seconds: float) -> bytes:
        return b""

    def sent(self, round: int) -> None:
        """Nothing is counted here."""

    def ended(self, round: int, counted: bool) -> None:
        """Nothing is counted here."""


async def join(
    host: str,
    port: int,
    index: int,
    parameters: SessionParameters,
    parties: Parties,
    *,
    state_dir: Path | None = None,
    longest_model: int = LONGEST_MODEL,
    connect_timeout: float = 120.0,
    reconnect_timeout: float = 20.0,
) -> AsyncIterator[Round]:
    """Take part in a session; yield each round, which waits for its `contribute`.

    Sums are helped to be decrypted meanwhile. What is not contributed before the next round is
    asked for sits its round out.

    Args:
        host: of the server.
        port: of the server.
        index: of this client, from 1.
        parameters: the same for all parties.
        parties: own key, and everybody's certificates.
        state_dir: where this client is kept, to go on when its process is started again.
        longest_model: bytes of the longest model that is let in.
        connect_timeout: seconds to reach the server at first.
        reconnect_timeout: seconds to reach it again once the connection is lost.

    Raises:
        Unreachable: the server is not there, does not let this client in, or stays away.
        ServerGone: the connection was lost in the middle of the set-up.
        ProtocolError: the server broke the protocol, or leaves this client out, and says why.
        StateError: the state directory is of no use.
    """
    plan = make_plan(parameters)
    limit = longest_of_server(plan, longest_model)

    async def connect(seconds: float) -> Connection:
        context, pin = parties.client_context(), parties.server_pin
        return await Connection.connect(host, port, index, context, pin, limit, seconds)

    store = _open_store(plan, index, parties, state_dir)
    kept = store.restore(plan, parties.identity, parties.roster) if store else None
    keep = store.keep if store else None
    party = kept or Client(index, parameters, parties.identity, parties.roster, journal=keep)
    work = _Handed()
    session = ClientSession(party, await connect(connect_timeout), work, keep)
    session.come_back() if kept else session.start()
    playing = asyncio.create_task(follow(session, lambda: connect(reconnect_timeout)))
    try:
        while (begun := await _next(work.rounds, playing)) is not None:
            yield begun
            begun.contribute(None)
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        await session.transport.close(CLOSE_SECONDS)
        if store is not None:
            store.vault.close()


def _open_store(
    plan: Plan, index: int, parties: Parties, state_dir: Path | None
) -> ClientStore | None:
    if state_dir is None:
        return None
    return ClientStore(Vault(state_dir, parties.own.private_key, index, plan.digest))


async def _next(rounds: asyncio.Queue[Round], playing: asyncio.Task[None]) -> Round | None:
    """Return the next round; None at the session's end, which may raise."""
    getting = asyncio.create_task(rounds.get())
    await asyncio.wait({getting, playing}, return_when=asyncio.FIRST_COMPLETED)
    if getting.done():
        return getting.result()
    getting.cancel()
    await playing
    return None
