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
from fl.schemes.scheme import Setting, scheme_of
from fl.state.directory import party_directory
from fl.state.spending import Spending
from mphe.run import ClientSession, Connection, Parties, ServerGone, Vault, follow
from mphe.update import Counts

CONNECT_SECONDS = 120.0
RECONNECT_SECONDS = 20.0
RESTART_SECONDS = 600.0
PROBE_SECONDS = 3.0


async def _connect(
    party: PartyConfig, parties: Parties, index: int, limit: int, seconds: float
) -> Connection:
    context, pin = (parties.client_context(), parties.server_pin) if party.tls else (None, None)
    return await Connection.connect(party.host, party.port, index, context, pin, limit, seconds)


class ClientWork:
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


def _open_vault(state_dir: str | None, launch: Launch, digest: bytes) -> Vault | None:
    """Return this client's part of the state directory; StateError when it is of no use."""
    if not state_dir:
        return None
    directory, identity = party_directory(state_dir, launch.index), launch.identity.private_key
    return Vault(directory, identity, launch.index, digest)


async def _take_part(config: Config, launch: Launch) -> None:
    """Connect and follow the server to the end."""
    own, dropout, parties = config.party, config.rounds.dropout, launch.parties
    learner = make_learner(config, launch.index, launch.dataset, launch.own_data)
    length, blocks = learner.codec.payload_length, block_map(own.crypto_threads)
    setting = Setting(config.session, length, learner.size, parties.roster, blocks)
    agreement = scheme_of(config.codec.aggregation).agree(setting)
    vault = _open_vault(own.state_dir, launch, agreement.digest)
    party, keep, returns = agreement.client(launch.index, parties.identity, vault)
    learner.spending = Spending(config.flags, vault, returns)
    # Under a launcher a dead server ends the job; alone it may be started again.
    waits = RESTART_SECONDS if own.state_dir and not launch.processes else 0.0

    async def connect(seconds: float) -> Connection:
        limit = agreement.longest_of_server
        return await _connect(own, parties, launch.index, limit, seconds)

    session = ClientSession(
        party,
        await connect(max(CONNECT_SECONDS, waits if returns else 0.0)),
        ClientWork(learner),
        keep,
        lambda round: launch.index in dropout.of(round),
    )
    closing = FLUSH_SECONDS
    try:
        session.come_back() if returns else session.start()
        await follow(session, lambda: connect(max(RECONNECT_SECONDS, waits)))
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
