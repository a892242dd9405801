"""A client: takes part in the set-up, trains on its own data, encrypts, and decrypts sums."""

import asyncio
import socket
import sys
import time
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from fl.config.configs import Config, PartyConfig
from fl.launch.mpi import Launch
from fl.learning.build import make_learner
from fl.learning.learner import Learner
from fl.model.round_model import RoundModel
from fl.report.timings import Timings
from fl.run.exits import end_of_client
from fl.run.stopping import CLOSE_SECONDS, FLUSH_SECONDS, stoppable
from fl.run.threads import block_map
from fl.schemes.plain import PlainClient
from fl.state.directory import party_directory
from fl.state.spending import Spending
from mphe import Client, Identity, Plan, Roster, make_plan
from mphe.net.tcp import Client as Connection
from mphe.net.tls import client_context, fingerprint, public_key
from mphe.run.party import ClientParty
from mphe.run.session import ClientSession, ServerGone, follow
from mphe.run.store import ClientStore
from mphe.run.vault import Vault
from mphe.update import Counts
from mphe.wire.messages import SERVER
from mphe.wire.sizes import longest_message

CONNECT_SECONDS = 120.0
RECONNECT_SECONDS = 20.0
RESTART_SECONDS = 600.0
PROBE_SECONDS = 3.0


def _identities(launch: Launch) -> dict[int, bytes]:
    """Return the public keys of all clients, from the launcher or the roster."""
    return {
        index: public_key(certificate)
        for index, certificate in enumerate(launch.certificates)
        if index != SERVER
    }


async def _connect(party: PartyConfig, launch: Launch, limit: int, seconds: float) -> Connection:
    server = launch.certificates[SERVER]
    return await Connection.connect(
        party.host,
        party.port,
        launch.index,
        client_context(launch.identity, server) if party.tls else None,
        fingerprint(server) if party.tls else None,
        limit,
        seconds,
    )


class Training:
    """What one client computes, as the runtime asks for it."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._counts: dict[int, Counts] = {}
        self._timings = Timings()

    async def update(self, round: int, model: bytes) -> NDArray[Any]:
        """Return what is to be encrypted for a round."""
        learner, started = self._learner, time.perf_counter()
        parsed = RoundModel.from_bytes(model, learner.size)
        update, counts = await asyncio.to_thread(learner.update, round, parsed)
        trained = time.perf_counter()
        values = await asyncio.to_thread(learner.encode, round, parsed, update, counts)
        self._counts = {round: counts}
        self._timings = Timings(trained - started, time.perf_counter() - trained)
        return values

    def metrics(self, encrypt_seconds: float) -> bytes:
        """Return how long this round's update took; nothing where that depends on the data."""
        if self._learner.private:
            return Timings().to_bytes()
        encrypt = self._timings.encrypt + encrypt_seconds
        return replace(self._timings, encrypt=encrypt).to_bytes()

    def sent(self, round: int) -> None:
        """Note that an update leaves."""
        self._learner.sends(round, self._counts[round])

    def ended(self, round: int, counted: bool) -> None:
        """Note whether an update was counted."""
        self._learner.counted(round, counted)


def _open_vault(state_dir: str | None, launch: Launch, plan: Plan) -> Vault | None:
    """Return this client's part of the state directory; StateError when it is of no use."""
    if not state_dir:
        return None
    directory, identity = party_directory(state_dir, launch.index), launch.identity.private_key
    return Vault(directory, identity, launch.index, plan.digest)


def _restore(config: Config, launch: Launch, plan: Plan, store: ClientStore) -> Client | None:
    """Return the client of the process before, None where none was kept; StateError."""
    identity, roster = Identity(launch.identity.private_key), Roster(_identities(launch))
    return store.restore(plan, identity, roster, block_map(config.party.crypto_threads))


def _make_party(
    config: Config, launch: Launch, plan: Plan, store: ClientStore | None
) -> ClientParty:
    """Return a client that has not joined yet."""
    if config.codec.aggregation == "plain":
        return PlainClient(launch.index)
    return Client(
        launch.index,
        plan.session,
        Identity(launch.identity.private_key),
        _identities(launch),
        blocks=block_map(config.party.crypto_threads),
        journal=store.keep if store else None,
    )


async def _take_part(config: Config, launch: Launch) -> None:
    """Connect and follow the server to the end."""
    own, dropout = config.party, config.rounds.dropout
    learner = make_learner(config, launch.index, launch.dataset, launch.own_data)
    plan = make_plan(config.session.parameters(learner.codec.payload_length))
    limit = longest_message(plan, 4 * learner.size)
    vault = _open_vault(own.state_dir, launch, plan)
    store = ClientStore(vault) if vault and config.codec.aggregation != "plain" else None
    kept = _restore(config, launch, plan, store) if store else None
    learner.spending = Spending(config.flags, vault, kept is not None)
    # Under a launcher a dead server ends the job; alone it may be started again.
    waits = RESTART_SECONDS if own.state_dir and not launch.processes else 0.0
    transport = await _connect(own, launch, limit, max(CONNECT_SECONDS, waits if kept else 0.0))
    party = kept or _make_party(config, launch, plan, store)
    session = ClientSession(
        party,
        transport,
        Training(learner),
        store.keep if store else None,
        lambda round: launch.index in dropout.of(round),
    )
    closing = FLUSH_SECONDS
    try:
        session.come_back() if kept else session.start()
        seconds = max(RECONNECT_SECONDS, waits)
        await follow(session, lambda: _connect(own, launch, limit, seconds))
        if not (launch.processes or party.is_open):
            # Under a launcher the server's last words on the same terminal say why.
            raise ServerGone("the server ended the run without this client: ask what it printed")
    except asyncio.CancelledError:
        closing = CLOSE_SECONDS
        raise
    finally:
        await session.transport.close(closing)
        if not launch.processes and party.is_open:
            sys.stderr.write(f"client {launch.index}: {learner.report()}\n")


def server_listens(host: str, port: int) -> bool:
    """Return whether anything still accepts connections at the server's address."""
    try:
        with socket.create_connection((host, port), PROBE_SECONDS):
            return True
    except OSError:
        return False


def run(config: Config, launch: Launch, index: int) -> int:
    """Play client `index` to the end; return the exit code."""
    party = config.party
    try:
        asyncio.run(stoppable(_take_part(config, launch)))
    except Exception as error:
        ending = end_of_client(
            error,
            bool(launch.processes),
            party.state_dir,
            lambda: server_listens(party.host, party.port),
        )
        if ending is None:
            raise
        if ending.line:
            sys.stderr.write(f"client {index}: {ending.line}\n")
        return ending.code
    return 0
