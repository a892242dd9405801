"""One client over a connection: what the server says to its party, what that says to the server."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, Protocol

from numpy.typing import NDArray

from mphe.client import Finished, Rejected
from mphe.errors import LocalProtocolError, ProtocolError, printable
from mphe.net.events import Lost, Received
from mphe.net.transport import ClientTransport
from mphe.roles.machine import Event
from mphe.roles.rounds.contributor import RoundEnded, TrainOn
from mphe.roles.step import Step
from mphe.run.party import ClientParty


class ServerGone(Exception):
    """The server vanished before the session was over."""


class Work(Protocol):
    """What a client computes; the base of its updates."""

    async def update(self, round: int, model: bytes) -> NDArray[Any] | None:
        """Return the integers to contribute to a round; None to sit it out."""

    def metrics(self, encrypt_seconds: float) -> bytes:
        """Return what the server is told in clear beside the update just made."""

    def sent(self, round: int) -> None:
        """Hear that the update of a round leaves, which may or may not be counted."""

    def ended(self, round: int, counted: bool) -> None:
        """Hear whether the update of a round is in its sum."""


class ClientSession:
    """Plays a client to its end."""

    def __init__(
        self,
        party: ClientParty,
        transport: ClientTransport,
        work: Work,
        keep: Callable[[bytes], None] | None = None,
        leaves: Callable[[int], bool] = lambda round: False,
    ) -> None:
        """Take over a party that has not started, or comes back.

        Args:
            party: the client.
            transport: may be replaced when the connection is lost; the party stays.
            work: computes the updates.
            keep: stores the party's state for a restart, before anything of it is sent.
            leaves: whether to lose the connection in a round on purpose, for experiments.
        """
        self.party = party
        self.transport = transport
        self._work = work
        self._keep = keep
        self._leaves = leaves
        self._busy = asyncio.Lock()
        self._over = False

    def start(self) -> None:
        """Join."""
        self._carry_out(self.party.start())

    def come_back(self) -> None:
        """Go on where a process before this one stopped."""
        self._carry_out(self.party.reconnected())

    def connected_again(self, transport: ClientTransport) -> None:
        """Go on over a new connection; the server may be another process by now."""
        self.transport = transport
        self.come_back()

    async def run(self) -> None:
        """Take part until the server says that the session is over.

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
                self._take(event.payload)

    def _take(self, data: bytes) -> None:
        step = self.party.receive(data)
        for event in step.events:
            if isinstance(event, TrainOn) and self._leaves(event.round):
                self._leave(step)
        self._carry_out(step)

    def _leave(self, step: Step) -> NoReturn:
        """Lose the connection before training, but after what is said about the next round."""
        self._carry_out(Step(step.mail))
        raise ServerGone("left this round on purpose")

    def _carry_out(self, step: Step) -> None:
        # Whoever is not in the rounds yet has nothing that is worth a restart.
        if step.mail and self._keep is not None and self.party.is_open:
            self._keep(self.party.state)
        for _, data in step.mail:
            self.transport.send(data)
        for event in step.events:
            self._happened(event)

    def _happened(self, event: Event) -> None:
        if isinstance(event, Finished):
            self._over = True
        elif isinstance(event, Rejected):
            raise ProtocolError(f"the server leaves this client out: {printable(event.reason)}")
        elif isinstance(event, RoundEnded):
            self._work.ended(event.round, event.counted)
        elif isinstance(event, TrainOn):
            self._tasks.create_task(self._contribute(event))

    async def _contribute(self, event: TrainOn) -> None:
        """Compute, encrypt and send an update; decryption requests are served meanwhile."""
        party, work = self.party, self._work
        async with self._busy:
            if party.round != event.round:
                return
            integers = await work.update(event.round, event.model)
            if integers is None:
                return
            started = time.perf_counter()
            try:
                payload = await asyncio.to_thread(party.encrypt, integers)
            except LocalProtocolError:
                if party.round != event.round:
                    return  # a newer round has begun, and does not list this client's pledge
                raise
            seconds = time.perf_counter() - started
            step = party.contribute(event.round, payload, work.metrics(seconds))
            if step.mail:  # nothing leaves when the round is over
                work.sent(event.round)
            self._carry_out(step)


async def follow(session: ClientSession, connect: Callable[[], Awaitable[ClientTransport]]) -> None:
    """Run a session to its end, over a new connection whenever one is lost.

    Raises:
        ServerGone: the connection was lost in the middle of the set-up, and with it the place.
        Unreachable: the server does not come back.
    """
    while True:
        try:
            return await session.run()
        except ServerGone:
            if not session.party.is_open:
                raise
            await session.transport.close()
            session.connected_again(await connect())
