"""Connects a sans-I/O role of the server with a transport and the clock."""

import asyncio
import time
from collections.abc import Collection, Iterable
from typing import Protocol

from fl.report.metrics import Departure
from fl.report.progress import Display
from mphe.errors import OtherVersion, RemoteProtocolError
from mphe.net.events import Connected, Lost, Received
from mphe.net.events import Event as NetEvent
from mphe.net.transport import ServerTransport
from mphe.roles.machine import Event, Output, Send
from mphe.run.deadlines import Deadlines
from mphe.wire import codec
from mphe.wire.messages import Join, Message, Ready, Rejection

MAX_REASON = 1000


class Role(Protocol):
    """What the driver needs of a role."""

    @property
    def step(self) -> tuple[object, ...]:
        """What changes whenever a new wait begins."""

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take one message."""

    def lost(self, *peers: int) -> list[Output]:
        """Go on without peers that vanished together."""

    def deadline_passed(self) -> list[Output]:
        """Go on without those that are late."""

    def waiting_for(self) -> tuple[int, ...]:
        """Return whose answer is missing."""


class Observer:
    """Hears what happens while a role runs; the base remembers the events."""

    def __init__(self) -> None:
        """Hear nothing yet."""
        self.events: list[Event] = []

    def happened(self, event: Event) -> None:
        """Take an event, at the moment it occurs."""
        self.events.append(event)

    def handled(self, message: Message, seconds: float) -> None:
        """Take the time that a role spent on a message."""


class Driver:
    """Runs one role after the other; keeps who went missing and when.

    Attributes:
        excused: clients whose next loss is no news: they leave this round on purpose.
    """

    def __init__(self, transport: ServerTransport, display: Display) -> None:
        """Drive nothing yet."""
        self.transport = transport
        self.departures: list[Departure] = []
        self.round = 0
        self.excused: set[int] = set()
        self._display = display
        self._gone: set[int] = set()
        self._deadlines = Deadlines()

    async def run(
        self, role: Role, outputs: list[Output], seconds: float, observer: Observer
    ) -> None:
        """Drive a role until it waits for nobody.

        Args:
            role: the set-up or the rounds.
            outputs: what starting it returned.
            seconds: to wait in one step of the role at most; less when such steps have been short.
            observer: hears the events.
        """
        loop = asyncio.get_running_loop()
        self._carry_out(role, outputs, observer)
        step, began = role.step, loop.time()
        patience = self._deadlines.seconds(step[0], seconds)
        while waiting := role.waiting_for():
            event = await self.transport.next_event(max(0.0, began + patience - loop.time()))
            if event is not None:
                await self._handle(role, event, observer)
            else:
                self._display.warn(f"no answer from {name(waiting)} within {patience:.3g} s")
                self._note(waiting, f"no answer within {patience:.3g} s")
                self._carry_out(role, role.deadline_passed(), observer)
            if event is None or role.step != step:
                if not isinstance(event, Lost):  # that says nothing about how long answers take
                    self._deadlines.took(step[0], loop.time() - began)
                step, began = role.step, loop.time()
                patience = self._deadlines.seconds(step[0], seconds)

    async def await_return(
        self, role: Role, absent: Collection[int], seconds: float, observer: Observer
    ) -> None:
        """Wait until one of these clients is connected, or so many seconds have passed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not self.transport.connected & set(absent):
            event = await self.transport.next_event(max(0.0, deadline - loop.time()))
            if event is None:
                return
            await self._handle(role, event, observer)

    async def await_droppers(self, role: Role, clients: Iterable[int], seconds: float) -> None:
        """Wait for clients that left a round on purpose; who stays away is lost after all."""
        for client in sorted(clients):
            await self.await_return(role, {client}, seconds, Observer())
            if client not in self.transport.connected:
                self._depart(Lost(client, "left the round and did not come back"))

    async def catch_up(self, role: Role, observer: Observer) -> None:
        """Take what happened while no role was running."""
        while (event := await self.transport.next_event(0)) is not None:
            await self._handle(role, event, observer)

    async def _handle(self, role: Role, event: NetEvent, observer: Observer) -> None:
        if isinstance(event, Lost):
            await self._lost(role, event, observer)
        elif isinstance(event, Received):
            self._take(role, event, observer)
        elif isinstance(event, Connected):
            self._came(event)

    def _take(self, role: Role, event: Received, observer: Observer) -> None:
        """Give a message to the role; whoever sent a bad one loses its place."""
        started, message = time.perf_counter(), None
        try:
            message = codec.decode(event.payload, event.peer)
            outputs = role.receive(event.peer, message)
        except RemoteProtocolError as error:
            self._display.warn(f"client {error.sender} is left out: {error.reason}")
            self._note([error.sender], error.reason)
            if (
                self.round == 0
                or isinstance(message, Join | Ready)
                or isinstance(error, OtherVersion)
            ):
                self._reject(event.peer, error.reason)
            self._carry_out(role, role.lost(event.peer), observer)
            return
        observer.handled(message, time.perf_counter() - started)
        self._carry_out(role, outputs, observer)

    def _reject(self, peer: int, reason: str) -> None:
        """Tell a client that it takes no part, and why, instead of leaving it to wait."""
        if self.transport.send(peer, codec.encode(Rejection(reason[:MAX_REASON]))):
            self.excused.add(peer)
            self.transport.disconnect(peer, reason)

    async def _lost(self, role: Role, event: Lost, observer: Observer) -> None:
        """Let the role go on without all who are gone by now, in one step."""
        gone = [event.peer]
        self._depart(event)
        before: list[Received] = []
        after: list[Received] = []
        while (more := await self.transport.next_event(0)) is not None:
            if isinstance(more, Lost):
                gone.append(more.peer)
                self._depart(more)
            elif isinstance(more, Received):
                # From a peer that is gone, it came over its next connection.
                (after if more.peer in gone else before).append(more)
            else:
                self._came(more)
        # What they sent before they vanished still counts.
        for received in before:
            self._take(role, received, observer)
        self._carry_out(role, role.lost(*gone), observer)
        for received in after:
            self._take(role, received, observer)

    def _depart(self, event: Lost) -> None:
        if event.peer in self.excused:
            self.excused.discard(event.peer)
            return
        self._display.warn(f"client {event.peer} is gone: {event.reason}")
        self._note([event.peer], event.reason)
        self._gone.add(event.peer)

    def _came(self, event: Connected) -> None:
        if event.peer in self._gone:
            self._display.say(f"client {event.peer} is back")

    def _note(self, clients: Iterable[int], reason: str) -> None:
        self.departures += [Departure(client, self.round, reason) for client in clients]

    def _carry_out(self, role: Role, outputs: list[Output], observer: Observer) -> None:
        """Send what is to be sent; a peer that cannot be reached is lost."""
        unreachable = set()
        for output in outputs:
            if not isinstance(output, Send):
                observer.happened(output)
            elif not self.transport.send(output.receiver, codec.encode(output.message)):
                unreachable.add(output.receiver)
        if unreachable:
            self._carry_out(role, role.lost(*unreachable), observer)


def name(clients: Iterable[int]) -> str:
    """Return "client 2" or "clients 2, 3"."""
    listed = sorted(clients)
    return ("client " if len(listed) == 1 else "clients ") + ", ".join(map(str, listed))
