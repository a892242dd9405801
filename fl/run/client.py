"""A client: takes part in the set-up, trains on its own data, encrypts, and decrypts sums."""

import asyncio
import socket
import sys

from fl.config.arguments import Args
from fl.config.dropout import leaver
from fl.launch.mpi import Launch
from fl.learning.learner import Learner
from fl.learning.private_learner import BudgetSpent, PrivateLearner
from fl.run.client_session import ServerGone, Session, follow
from fl.run.stopping import CLOSE_SECONDS, Stopped, stoppable
from fl.run.threads import block_map
from fl.schemes.session import max_frame, plan_for
from fl.state.client import ClientState
from fl.state.spending import Spending
from fl.state.vault import StateError, Vault, party_directory
from mphe.arithmetic.sampling import RandomSource
from mphe.errors import EncodingError, ProtocolError
from mphe.net.tcp import Client, Unreachable, WrongServer
from mphe.net.tls import client_context, fingerprint, public_key
from mphe.plan.plan import Plan
from mphe.roles.rounds.decryptor import Memory
from mphe.roles.setup.client import SetupClient
from mphe.roles.setup.common import SessionKeys
from mphe.roles.setup.returning import ReturningClient
from mphe.wire.messages import SERVER

CONNECT_SECONDS = 120.0
RECONNECT_SECONDS = 20.0
RESTART_SECONDS = 600.0
EXIT_USAGE = 2
PROBE_SECONDS = 3.0
FLUSH_SECONDS = 5.0


def make_setup(args: Args, launch: Launch, plan: Plan) -> SetupClient:
    """Return the set-up of this client, with everybody's keys from the launcher."""
    source = RandomSource.from_system()
    identity = launch.identity.private_key
    return SetupClient(launch.index, plan, identity, _identities(launch), source)


def _find_state(
    args: Args, launch: Launch, plan: Plan
) -> tuple[ClientState | None, tuple[SessionKeys, Memory] | None]:
    """Return this client's state directory and what it holds; StateError when it is of no use."""
    if not args.state_dir:
        return None, None
    identity, index = launch.identity.private_key, launch.index
    directory = party_directory(args, index)
    state = ClientState(Vault(directory, identity, index, plan.session.digest()))
    return state, state.load(plan, _identities(launch), index)


def _identities(launch: Launch) -> dict[int, bytes]:
    """Return the public keys of all clients, from the launcher or the roster."""
    return {
        index: public_key(certificate)
        for index, certificate in enumerate(launch.certificates)
        if index != SERVER
    }


async def _connect(args: Args, launch: Launch, limit: int, seconds: float) -> Client:
    server = launch.certificates[SERVER]
    return await Client.connect(
        args.host,
        args.port,
        launch.index,
        client_context(launch.identity, server) if args.tls else None,
        fingerprint(server) if args.tls else None,
        limit,
        seconds,
    )


async def _take_part(args: Args, launch: Launch) -> None:
    """Connect and follow the server to the end."""
    kind = PrivateLearner if args.dp_epsilon else Learner
    learner = kind(args, launch.index, launch.dataset, launch.own_data)
    plan = plan_for(args, learner.codec.payload_length)
    limit = max_frame(plan, learner.size)
    state, kept = _find_state(args, launch, plan)
    learner.spending = Spending(args, state.vault if state else None, kept is not None)
    # Under a launcher a dead server ends the job; alone it may be started again.
    waits = RESTART_SECONDS if args.state_dir and not launch.processes else 0.0
    transport = await _connect(args, launch, limit, max(CONNECT_SECONDS, waits if kept else 0.0))
    blocks = block_map(args.crypto_threads)
    leaves = leaver(args.simulate_dropout, args.num_peers, args.seed, launch.index)
    session = Session(launch.index, learner, transport, state, blocks, leaves)
    closing = FLUSH_SECONDS
    try:
        if args.aggregation == "plain":
            session.join_plain()
        elif kept is not None:
            keys, memory = kept
            session.come_back(ReturningClient(keys, launch.identity.private_key), memory)
        else:
            session.join(make_setup(args, launch, plan))
        seconds = max(RECONNECT_SECONDS, waits)
        await follow(session, lambda: _connect(args, launch, limit, seconds))
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


def run(args: Args, launch: Launch, index: int) -> int:
    """Play client `index` to the end; return the exit code.

    Under a launcher it is 1 only when the server is dead: a client that fails while training
    goes on leaves the job's exit code, and the terminal, to the server.
    """
    try:
        asyncio.run(stoppable(_take_part(args, launch)))
    except Stopped as stopped:
        if launch.processes:  # mpirun is told by the server how the job went
            return 0
        sys.stderr.write(f"client {index}: {stopped}; start it again to take part again\n")
        return stopped.code
    except BudgetSpent as spent:
        sys.stderr.write(f"client {index}: {spent}\n")
        return 0
    except (ServerGone, Unreachable, WrongServer, ProtocolError, EncodingError) as error:
        sys.stderr.write(f"client {index}: {error}\n")
        return 0 if launch.processes and server_listens(args.host, args.port) else 1
    except StateError as error:
        sys.stderr.write(f"client {index}: {error}\n")
        return 0 if launch.processes else EXIT_USAGE
    except OSError as error:
        if not args.state_dir:
            raise
        line = f"cannot write to --state_dir {args.state_dir} ({error.strerror}): make room in it"
        sys.stderr.write(f"client {index}: {line}\n")
        return 0 if launch.processes else 1
    return 0
