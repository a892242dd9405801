"""A client: takes part in the set-up, trains on its own data, encrypts, and decrypts sums."""

import asyncio
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from fl.arguments import Args
from fl.dropout import leaver
from fl.keeping import ClientState
from fl.launch import Launch
from fl.learner import Learner
from fl.plain import PlainEncryptor
from fl.private_learner import BudgetSpent, PrivateLearner
from fl.session import Model, Note, max_frame, plan_for
from fl.spending import Spending
from fl.state import StateError, Vault, party_directory
from fl.stopping import CLOSE_SECONDS, Stopped, stoppable
from fl.threads import block_map
from mphe import codec
from mphe.contributor import Contributor, Counted, TrainOn
from mphe.decryptor import Decryptor, Memory
from mphe.encryptor import Encryptor
from mphe.errors import (
    EncodingError,
    LocalProtocolError,
    ProtocolError,
    RefusedDecryption,
)
from mphe.evidence import Notary
from mphe.machine import Event, Output, Send
from mphe.messages import (
    SERVER,
    DecryptionRequest,
    Finish,
    Join,
    Message,
    Refusal,
    RoundEnd,
    RoundStart,
    SessionOpen,
)
from mphe.packing import BlockMap
from mphe.parameters import Plan
from mphe.pledging import Pledger
from mphe.returning import ReturningClient, announce
from mphe.sampling import RandomSource
from mphe.setup import SessionKeys
from mphe.setup_client import KeysReady, Opened, SetupClient
from net.events import Lost, Received
from net.tcp import Client, Unreachable, WrongServer
from net.tls import client_context, fingerprint, public_key
from net.transport import ClientTransport

CONNECT_SECONDS = 120.0
RECONNECT_SECONDS = 20.0
RESTART_SECONDS = 600.0
EXIT_USAGE = 2
PROBE_SECONDS = 3.0
FLUSH_SECONDS = 5.0


class ServerGone(Exception):
    """The server vanished before training was over."""


class Session:
    """Routes messages to the roles of one client and carries out what they say."""

    def __init__(
        self,
        index: int,
        learner: Learner,
        transport: ClientTransport,
        state: ClientState | None = None,
        blocks: BlockMap = map,
        leaves: Callable[[int], bool] = lambda round: False,
    ) -> None:
        """Wait for `join`, which chooses between encrypted and plain rounds.

        Args:
            index: of this client.
            learner: computes the updates.
            transport: may be replaced when the connection is lost; keys and roles stay.
            state: keeps keys and answers for a restart.
            blocks: computes the blocks of an update.
            leaves: whether to lose the connection in a round on purpose, for experiments.
        """
        self._leaves = leaves
        self.index = index
        self.transport = transport
        self._learner = learner
        self._state = state
        self._blocks = blocks
        self._memory: Memory | None = None
        self._keys: SessionKeys | None = None
        self._setup: SetupClient | ReturningClient | None = None
        self._contributor: Contributor | None = None
        self._decryptor: Decryptor | None = None
        self._busy = asyncio.Lock()
        self._over = False

    @property
    def admitted(self) -> bool:
        """Whether the set-up let this client into the rounds."""
        return self._contributor is not None

    def join(self, setup: SetupClient) -> None:
        """Take part in the key set-up."""
        self._setup = setup
        self._carry_out(setup.start())

    def come_back(self, setup: ReturningClient, memory: Memory) -> None:
        """Go on with the keys and the memory of the process that was here before."""
        self._memory = memory
        self._setup = setup
        self._carry_out(setup.start())

    def join_plain(self) -> None:
        """Take part in plain rounds, which need no keys."""
        source = RandomSource.from_system()
        self._contributor = Contributor(self.index, PlainEncryptor(), source)
        self._join_plain()

    def _join_plain(self) -> None:
        self._send(Join(self.index, b"", b"", b""))

    async def run(self) -> None:
        """Take part until the server says that training is over.

        Raises:
            ServerGone: the connection is lost.
            ProtocolError: the server broke the protocol.
        """
        try:
            # An update that fails ends this client: it cannot take part any more.
            async with asyncio.TaskGroup() as self._tasks:
                await self._follow()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _follow(self) -> None:
        while not self._over:
            event = await self.transport.next_event(None)
            if isinstance(event, Lost):
                raise ServerGone(event.reason)
            if isinstance(event, Received):
                self._take(codec.decode(event.payload, SERVER))

    def _take(self, message: Message) -> None:
        """Give a message to the role that it is for."""
        if isinstance(message, Finish):
            self._over = True
        elif isinstance(message, DecryptionRequest):
            self._decrypt(message)
        elif isinstance(message, RoundStart | RoundEnd):
            # A server that has not read our first word yet takes us for the process before.
            contributor = self._contributor
            # Nor is the end of a round that began before this client was back any news to it.
            if contributor and (contributor.round or isinstance(message, RoundStart)):
                outputs = contributor.receive(SERVER, message)
                if isinstance(message, RoundStart) and self._leaves(message.round):
                    self._leave(outputs)
                self._carry_out(outputs)
        elif isinstance(message, SessionOpen) and self.admitted:
            pass  # the answer to a client that came back without having died
        elif self._setup is not None:
            self._carry_out(self._setup.receive(SERVER, message))
        else:
            raise ProtocolError(f"the server sent a {type(message).__name__} out of place")

    def _leave(self, outputs: list[Output]) -> NoReturn:
        """Lose the connection before training, but after what is said about the next round."""
        self._carry_out([output for output in outputs if isinstance(output, Send)])
        raise ServerGone("left this round on purpose")

    def _decrypt(self, request: DecryptionRequest) -> None:
        """Answer a request, or say why not."""
        try:
            if self._decryptor is None:
                raise RefusedDecryption(SERVER, "this client holds no share of the key")
            self._carry_out(self._decryptor.receive(SERVER, request))
        except RefusedDecryption as refusal:
            self._send(Refusal(request.round, request.attempt, refusal.reason))

    def _carry_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Send):
                self._send(output.message)
            else:
                self._happened(output)

    def _send(self, message: Message) -> None:
        self.transport.send(codec.encode(message))

    def _happened(self, event: Event) -> None:
        if isinstance(event, KeysReady):
            self._keys = event.keys
            if event.keys.share is not None:
                source = RandomSource.from_system()
                journal = self._state.record if self._state is not None else None
                self._decryptor = Decryptor(event.keys, source, journal, self._memory)
        elif isinstance(event, Opened) and self._keys is not None:
            self._open(self._keys)
        elif isinstance(event, Counted):
            self._learner.counted(event.round, event.counted)
        elif isinstance(event, TrainOn):
            self._tasks.create_task(self._train(event))

    def _open(self, keys: SessionKeys) -> None:
        """Contribute from now on; the key is confirmed."""
        encryptor = Encryptor(keys.plan, keys.key, keys.crs_seed, self._blocks)
        pledger = None
        if keys.plan.session.verified and self._setup is not None:
            notary = Notary(keys.plan, keys.key, self.index, self._setup.identity)
            pledger = Pledger(self.index, keys.transcript, encryptor, notary)
        source = RandomSource.from_system()
        self._contributor = Contributor(self.index, encryptor, source, pledger)
        if self._decryptor is not None:
            self._decryptor.end_confirmation()
            if self._state is not None and self._memory is None:
                self._state.keep(keys, self._decryptor.memory)
        self._carry_out(self._contributor.pledge())

    def connected_again(self, transport: ClientTransport) -> None:
        """Go on over a new connection."""
        self.transport = transport
        if self._keys is not None and self._setup is not None:
            # The server may be another process by now, which has to hear who is there.
            self._send(announce(self._keys, self._setup.identity))
        if self._contributor is not None:
            if self._keys is None:
                self._join_plain()
            self._carry_out(self._contributor.pledge())

    @property
    def returns(self) -> bool:
        """Whether this client may lose the server and go on with another process of it."""
        return self.admitted or self._memory is not None

    async def _train(self, event: TrainOn) -> None:
        """Compute, encrypt and send an update; decryption requests are served meanwhile."""
        contributor = self._contributor
        async with self._busy:
            if contributor is None or contributor.round != event.round:
                return
            model = Model.from_bytes(event.model, self._learner.size)
            started = time.perf_counter()
            update, figures = await asyncio.to_thread(self._learner.update, event.round, model)
            trained = time.perf_counter()
            encode = self._learner.encode
            values = await asyncio.to_thread(encode, event.round, model, update, figures)
            try:
                payload = await asyncio.to_thread(contributor.encrypt, values)
            except LocalProtocolError:
                if contributor.round != event.round:
                    return  # a newer round has begun, and does not list this client's pledge
                raise
            note = Note(trained - started, time.perf_counter() - trained)
            if self._learner.private:  # how long it takes depends on how many samples there are
                note = Note()
            outputs = contributor.contribute(event.round, payload, note.to_bytes())
            if outputs:  # nothing leaves when the round is over
                self._learner.sends(event.round, figures)
            self._carry_out(outputs)


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
    plan = plan_for(args, learner.size)
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


async def follow(session: Session, connect: Callable[[], Awaitable[ClientTransport]]) -> None:
    """Run the session to its end, over a new connection whenever one is lost.

    Raises:
        ServerGone: the connection was lost in the middle of the set-up, and with it the place.
        Unreachable: the server does not come back.
    """
    while True:
        try:
            return await session.run()
        except ServerGone:
            if not session.returns:
                raise
            await session.transport.close()
            session.connected_again(await connect())


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
