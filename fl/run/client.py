"""A client: takes part in the set-up, trains on its own data, encrypts, and decrypts sums."""

import asyncio
import socket
import sys

from fl.config.configs import Config, PartyConfig
from fl.launch.mpi import Launch
from fl.learning.build import make_learner
from fl.run.client_session import ServerGone, Session, follow
from fl.run.exits import end_of_client
from fl.run.frames import max_frame
from fl.run.stopping import CLOSE_SECONDS, FLUSH_SECONDS, stoppable
from fl.run.threads import block_map
from fl.state.client import ClientState
from fl.state.spending import Spending
from fl.state.vault import Vault, party_directory
from mphe.arithmetic.sampling import RandomSource
from mphe.net.tcp import Client
from mphe.net.tls import client_context, fingerprint, public_key
from mphe.plan.plan import Plan, make_plan
from mphe.roles.rounds.decryptor import Memory
from mphe.roles.setup.client import SetupClient
from mphe.roles.setup.common import SessionKeys
from mphe.roles.setup.returning import ReturningClient
from mphe.wire.messages import SERVER

CONNECT_SECONDS = 120.0
RECONNECT_SECONDS = 20.0
RESTART_SECONDS = 600.0
PROBE_SECONDS = 3.0


def make_setup(launch: Launch, plan: Plan) -> SetupClient:
    """Return the set-up of this client, with everybody's keys from the launcher."""
    source = RandomSource.from_system()
    identity = launch.identity.private_key
    return SetupClient(launch.index, plan, identity, _identities(launch), source)


def _find_state(
    state_dir: str | None, launch: Launch, plan: Plan
) -> tuple[ClientState | None, tuple[SessionKeys, Memory] | None]:
    """Return this client's state directory and what it holds; StateError when it is of no use."""
    if not state_dir:
        return None, None
    identity, index = launch.identity.private_key, launch.index
    directory = party_directory(state_dir, index)
    state = ClientState(Vault(directory, identity, index, plan.session.digest()))
    return state, state.load(plan, _identities(launch), index)


def _identities(launch: Launch) -> dict[int, bytes]:
    """Return the public keys of all clients, from the launcher or the roster."""
    return {
        index: public_key(certificate)
        for index, certificate in enumerate(launch.certificates)
        if index != SERVER
    }


async def _connect(party: PartyConfig, launch: Launch, limit: int, seconds: float) -> Client:
    server = launch.certificates[SERVER]
    return await Client.connect(
        party.host,
        party.port,
        launch.index,
        client_context(launch.identity, server) if party.tls else None,
        fingerprint(server) if party.tls else None,
        limit,
        seconds,
    )


async def _take_part(config: Config, launch: Launch) -> None:
    """Connect and follow the server to the end."""
    party = config.party
    learner = make_learner(config, launch.index, launch.dataset, launch.own_data)
    plan = make_plan(config.session.parameters(learner.codec.payload_length))
    limit = max_frame(plan, learner.size)
    state, kept = _find_state(party.state_dir, launch, plan)
    learner.spending = Spending(config.flags, state.vault if state else None, kept is not None)
    # Under a launcher a dead server ends the job; alone it may be started again.
    waits = RESTART_SECONDS if party.state_dir and not launch.processes else 0.0
    transport = await _connect(party, launch, limit, max(CONNECT_SECONDS, waits if kept else 0.0))
    blocks = block_map(party.crypto_threads)
    dropout = config.rounds.dropout
    session = Session(
        launch.index,
        learner,
        transport,
        state,
        blocks,
        lambda round: launch.index in dropout.of(round),
    )
    closing = FLUSH_SECONDS
    try:
        if config.codec.aggregation == "plain":
            session.join_plain()
        elif kept is not None:
            keys, memory = kept
            session.come_back(ReturningClient(keys, launch.identity.private_key), memory)
        else:
            session.join(make_setup(launch, plan))
        seconds = max(RECONNECT_SECONDS, waits)
        await follow(session, lambda: _connect(party, launch, limit, seconds))
        if not (launch.processes or session.admitted):
            # Under a launcher the server's last words on the same terminal say why.
            raise ServerGone("the server ended the run without this client: ask what it printed")
    except asyncio.CancelledError:
        closing = CLOSE_SECONDS
        raise
    finally:
        await session.transport.close(closing)
        if not launch.processes and session.admitted:
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
