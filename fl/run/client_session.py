"""One client's side of a session: routes messages to its roles and carries out what they say."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from fl.learning.learner import Learner
from fl.model.round_model import RoundModel
from fl.report.timings import Timings
from fl.schemes.plain import PlainEncryptor
from fl.state.client import ClientState
from mphe.arithmetic.sampling import RandomSource
from mphe.errors import (
    LocalProtocolError,
    ProtocolError,
    RefusedDecryption,
)
from mphe.net.events import Lost, Received
from mphe.net.transport import ClientTransport
from mphe.roles.machine import Event, Output, Send
from mphe.roles.rounds.contributor import Contributor, Counted, TrainOn
from mphe.roles.rounds.decryptor import Decryptor, Memory
from mphe.roles.setup.client import KeysReady, Opened, SetupClient
from mphe.roles.setup.common import SessionKeys
from mphe.roles.setup.returning import ReturningClient, announce
from mphe.roles.verified.evidence import Notary
from mphe.roles.verified.pledges import Pledger
from mphe.scheme.encryptor import Encryptor
from mphe.scheme.packing import BlockMap
from mphe.wire import codec
from mphe.wire.messages import (
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
            model = RoundModel.from_bytes(event.model, self._learner.size)
            started = time.perf_counter()
            update, counts = await asyncio.to_thread(self._learner.update, event.round, model)
            trained = time.perf_counter()
            encode = self._learner.encode
            values = await asyncio.to_thread(encode, event.round, model, update, counts)
            try:
                payload = await asyncio.to_thread(contributor.encrypt, values)
            except LocalProtocolError:
                if contributor.round != event.round:
                    return  # a newer round has begun, and does not list this client's pledge
                raise
            timings = Timings(trained - started, time.perf_counter() - trained)
            if self._learner.private:  # how long it takes depends on how many samples there are
                timings = Timings()
            outputs = contributor.contribute(event.round, payload, timings.to_bytes())
            if outputs:  # nothing leaves when the round is over
                self._learner.sends(event.round, counts)
            self._carry_out(outputs)


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
