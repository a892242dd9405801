"""A client: takes part in the set-up, trains on its own data, encrypts, and decrypts sums."""

import asyncio
import socket
import sys
import time
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from fl.config.arguments import Args
from fl.config.dropout import leaver
from fl.launch.mpi import Launch
from fl.learning.learner import Learner
from fl.learning.private_learner import BudgetSpent, PrivateLearner
from fl.run.stopping import CLOSE_SECONDS, Stopped, stoppable
from fl.run.threads import block_map
from fl.schemes.plain import PlainClient
from fl.schemes.session import Model, Note, max_frame, plan_for
from fl.state.directory import CLIENT, party_directory
from fl.state.spending import Spending
from mphe import Client, EncodingError, Identity, Plan, ProtocolError, serial_of
from mphe.net.tcp import Client as Connection
from mphe.net.tcp import Unreachable, WrongServer
from mphe.net.tls import client_context, fingerprint, public_key
from mphe.run.party import ClientParty
from mphe.run.session import ClientSession, ServerGone, follow
from mphe.run.vault import StateError, Vault
from mphe.update import Counts
from mphe.wire.messages import SERVER

CONNECT_SECONDS = 120.0
RECONNECT_SECONDS = 20.0
RESTART_SECONDS = 600.0
EXIT_USAGE = 2
PROBE_SECONDS = 3.0
FLUSH_SECONDS = 5.0


def _identities(launch: Launch) -> dict[int, bytes]:
    """Return the public keys of all clients, from the launcher or the roster."""
    return {
        index: public_key(certificate)
        for index, certificate in enumerate(launch.certificates)
        if index != SERVER
    }


async def _connect(args: Args, launch: Launch, limit: int, seconds: float) -> Connection:
    server = launch.certificates[SERVER]
    return await Connection.connect(
        args.host,
        args.port,
        launch.index,
        client_context(launch.identity, server) if args.tls else None,
        fingerprint(server) if args.tls else None,
        limit,
        seconds,
    )


class Training:
    """What one client computes, as the runtime asks for it."""

    def __init__(self, learner: Learner) -> None:
        """Let this learner compute the updates."""
        self._learner = learner
        self._counts: dict[int, Counts] = {}
        self._note = Note()

    async def update(self, round: int, model: bytes) -> NDArray[Any]:
        """Return what is to be encrypted for a round."""
        learner, started = self._learner, time.perf_counter()
        parsed = Model.from_bytes(model, learner.size)
        update, counts = await asyncio.to_thread(learner.update, round, parsed)
        trained = time.perf_counter()
        values = await asyncio.to_thread(learner.encode, round, parsed, update, counts)
        self._counts = {round: counts}
        self._note = Note(trained - started, time.perf_counter() - trained)
        return values

    def metrics(self, encrypt_seconds: float) -> bytes:
        """Return how long this round's update took; nothing where that depends on the data."""
        if self._learner.private:
            return Note().to_bytes()
        return replace(self._note, encrypt=self._note.encrypt + encrypt_seconds).to_bytes()

    def sent(self, round: int) -> None:
        """Note that an update leaves."""
        self._learner.sends(round, self._counts[round])

    def ended(self, round: int, counted: bool) -> None:
        """Note whether an update was counted."""
        self._learner.counted(round, counted)


def _open_vault(args: Args, launch: Launch, plan: Plan) -> Vault | None:
    """Return this client's part of the state directory; StateError when it is of no use."""
    if not args.state_dir:
        return None
    directory, identity = party_directory(args, launch.index), launch.identity.private_key
    return Vault(directory, identity, launch.index, plan.digest)


class Keeper:
    """Writes a client's state into its vault, each once."""

    def __init__(self, vault: Vault) -> None:
        """Write into this vault."""
        self._vault = vault
        self._serial = -1

    def keep(self, state: bytes) -> None:
        """Write a state unless it is the last; OSError when it cannot be written for good."""
        serial = serial_of(state)
        if serial != self._serial:
            self._vault.write(CLIENT, state)
            self._serial = serial


def find_kept(
    args: Args, launch: Launch, plan: Plan, vault: Vault, keeper: Keeper
) -> Client | None:
    """Return the client of the process before, None where none was kept.

    Raises:
        StateError: it is damaged, or of something else.
    """
    state = vault.read(CLIENT)
    if state is None:
        return None
    blocks = block_map(args.crypto_threads)
    identity = Identity(launch.identity.private_key)
    try:
        client = Client.restore(state, identity, blocks=blocks, journal=keeper.keep)
    except EncodingError as error:
        raise vault.refusal(CLIENT, str(error)) from error
    if client.plan.session != plan.session or dict(client.roster) != _identities(launch):
        raise vault.refusal(CLIENT, "it was written with other flags or another roster")
    return client


def _make_party(args: Args, launch: Launch, plan: Plan, keeper: Keeper | None) -> ClientParty:
    """Return a client that has not joined yet."""
    if args.aggregation == "plain":
        return PlainClient(launch.index)
    return Client(
        launch.index,
        plan.session,
        Identity(launch.identity.private_key),
        _identities(launch),
        blocks=block_map(args.crypto_threads),
        journal=keeper.keep if keeper else None,
    )


async def _take_part(args: Args, launch: Launch) -> None:
    """Connect and follow the server to the end."""
    kind = PrivateLearner if args.dp_epsilon else Learner
    learner = kind(args, launch.index, launch.dataset, launch.own_data)
    plan = plan_for(args, learner.codec.payload_length)
    limit = max_frame(plan, learner.size)
    vault = _open_vault(args, launch, plan)
    keeper = Keeper(vault) if vault else None
    plain = args.aggregation == "plain"
    kept = find_kept(args, launch, plan, vault, keeper) if vault and keeper and not plain else None
    learner.spending = Spending(args, vault, kept is not None)
    # Under a launcher a dead server ends the job; alone it may be started again.
    waits = RESTART_SECONDS if args.state_dir and not launch.processes else 0.0
    transport = await _connect(args, launch, limit, max(CONNECT_SECONDS, waits if kept else 0.0))
    party = kept or _make_party(args, launch, plan, keeper)
    leaves = leaver(args.simulate_dropout, args.num_peers, args.seed, launch.index)
    keep = keeper.keep if keeper and not plain else None
    session = ClientSession(party, transport, Training(learner), keep, leaves)
    closing = FLUSH_SECONDS
    try:
        session.come_back() if kept else session.start()
        seconds = max(RECONNECT_SECONDS, waits)
        await follow(session, lambda: _connect(args, launch, limit, seconds))
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
