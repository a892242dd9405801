"""Connects a server, bytes in and bytes out, with a transport and the clock."""

import asyncio
import logging
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from mphe.errors import OtherVersion, RemoteProtocolError
from mphe.net.events import Connected, Lost, Received
from mphe.net.events import Event as NetEvent
from mphe.net.transport import ServerTransport
from mphe.roles.machine import Event
from mphe.roles.rounds.aggregator import AggregatorState
from mphe.roles.step import Step
from mphe.run.deadlines import Deadlines
from mphe.run.party import Waiting
from mphe.wire import codec
from mphe.wire.messages import Join, Ready, Rejection

MAX_REASON = 1000


@dataclass(frozen=True)
class Departure:
    """A client that went missing or was left out; round 0 is the set-up."""

    client: int
    round: int
    reason: str


class Reporter(Protocol):
    """Who tells people what happens."""

    def say(self, line: str) -> None:
        """Tell what is as it should be."""

    def warn(self, line: str) -> None:
        """Tell what is not."""


class LogReporter:
    """Tells the log of the standard library."""

    def __init__(self) -> None:
        self._log = logging.getLogger("mphe.run")

    def say(self, line: str) -> None:
        """Log what is as it should be."""
        self._log.info(line)

    def warn(self, line: str) -> None:
        """Log what is not."""
        self._log.warning(line)


class Observer:
    """Hears what happens while a party runs; the base remembers the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def happened(self, event: Event) -> None:
        """Take an event, at the moment it occurs."""
        self.events.append(event)

    def handled(self, events: list[Event], seconds: float) -> None:
        """Take the time that the party spent on a message, with what came of it."""


class Driver:
    """Runs a party, wait after wait; keeps who went missing and when.

    Attributes:
        excused: clients whose next loss is no news: they leave this round on purpose.
    """

    def __init__(self, transport: ServerTransport, reporter: Reporter) -> None:
        """Speak through this transport, and tell people through this reporter."""
        self.transport = transport
        self.departures: list[Departure] = []
        self.round = 0
        self.excused: set[int] = set()
        self._reporter = reporter
        self._gone: set[int] = set()
        # Who is away comes back when it can, however quickly others answer.
        self._deadlines = Deadlines(patient=(AggregatorState.KEEPING,))

    async def run(self, party: Waiting, step: Step, seconds: float, observer: Observer) -> None:
        """Drive a party until it waits for nobody.

        Args:
            party: the server.
            step: what starting it returned.
            seconds: to wait for one answer at most; less when such waits have been short.
            observer: hears the events.
        """
        loop = asyncio.get_running_loop()
        self._carry_out(party, step, observer)
        wait, began = party.step, loop.time()
        patience = self._deadlines.seconds(wait[0], seconds)
        self._tell_of_kept_sum(party, patience)
        while waiting := party.waiting_for():
            event = await self.transport.next_event(max(0.0, began + patience - loop.time()))
            if event is not None:
                await self._handle(party, event, observer)
            else:
                self._reporter.warn(
                    f"no answer from {name_clients(waiting)} within {patience:.3g} s"
                )
                self._note(waiting, f"no answer within {patience:.3g} s")
                self._carry_out(party, party.deadline_passed(), observer)
            if event is None or party.step != wait:
                if not isinstance(event, Lost):  # that says nothing about how long answers take
                    self._deadlines.took(wait[0], loop.time() - began)
                wait, began = party.step, loop.time()
                patience = self._deadlines.seconds(wait[0], seconds)
                self._tell_of_kept_sum(party, patience)

    def _tell_of_kept_sum(self, party: Waiting, seconds: float) -> None:
        """Say whom a wait is for that begins because too few decryptors are there."""
        kind, *_ = party.step
        if kind is AggregatorState.KEEPING and party.waiting_for():
            who = name_clients(party.waiting_for())
            self._reporter.say(
                f"waits up to {seconds:.3g} s for {who} to come back: "
                f"the sum of round {self.round} is kept"
            )

    async def await_return(
        self, party: Waiting, absent: Collection[int], seconds: float, observer: Observer
    ) -> None:
        """Wait until one of these clients is connected, or so many seconds have passed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not self.transport.connected & set(absent):
            event = await self.transport.next_event(max(0.0, deadline - loop.time()))
            if event is None:
                return
            await self._handle(party, event, observer)

    async def await_droppers(self, party: Waiting, clients: Iterable[int], seconds: float) -> None:
        """Wait for clients that left a round on purpose; who stays away is lost after all."""
        for client in sorted(clients):
            await self.await_return(party, {client}, seconds, Observer())
            if client not in self.transport.connected:
                self._depart(Lost(client, "left the round and did not come back"))

    async def catch_up(self, party: Waiting, observer: Observer) -> None:
        """Take what happened while the party was waiting for nobody."""
        while (event := await self.transport.next_event(0)) is not None:
            await self._handle(party, event, observer)

    async def _handle(self, party: Waiting, event: NetEvent, observer: Observer) -> None:
        if isinstance(event, Lost):
            await self._lost(party, event, observer)
        elif isinstance(event, Received):
            self._take(party, event, observer)
        elif isinstance(event, Connected):
            self._came(event)

    def _take(self, party: Waiting, event: Received, observer: Observer) -> None:
        """Give a message to the party; whoever sent a bad one loses its place."""
        started = time.perf_counter()
        try:
            step = party.receive(event.peer, event.payload)
        except RemoteProtocolError as error:
            self._reporter.warn(f"client {error.sender} is left out: {error.reason}")
            self._note([error.sender], error.reason)
            if self.round == 0 or _asks_to_join(event) or isinstance(error, OtherVersion):
                self._reject(event.peer, error.reason)
            self._carry_out(party, party.lost(event.peer), observer)
            return
        observer.handled(step.events, time.perf_counter() - started)
        self._carry_out(party, step, observer)

    def _reject(self, peer: int, reason: str) -> None:
        """Tell a client that it takes no part, and why, instead of leaving it to wait."""
        if self.transport.send(peer, codec.encode(Rejection(reason[:MAX_REASON]))):
            self.excused.add(peer)
            self.transport.disconnect(peer, reason)

    async def _lost(self, party: Waiting, event: Lost, observer: Observer) -> None:
        """Let the party go on without all who are gone by now, in one step."""
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
            self._take(party, received, observer)
        self._carry_out(party, party.lost(*gone), observer)
        for received in after:
            self._take(party, received, observer)

    def _depart(self, event: Lost) -> None:
        if event.peer in self.excused:
            self.excused.discard(event.peer)
            return
        self._reporter.warn(f"client {event.peer} is gone: {event.reason}")
        self._note([event.peer], event.reason)
        self._gone.add(event.peer)

    def _came(self, event: Connected) -> None:
        if event.peer in self._gone:
            self._reporter.say(f"client {event.peer} is back")

    def _note(self, clients: Iterable[int], reason: str) -> None:
        self.departures += [Departure(client, self.round, reason) for client in clients]

    def _carry_out(self, party: Waiting, step: Step, observer: Observer) -> None:
        """Send what is to be sent; a peer that cannot be reached is lost."""
        for happened in step.events:
            observer.happened(happened)
        unreachable = {
            receiver for receiver, data in step.mail if not self.transport.send(receiver, data)
        }
        if unreachable:
            self._carry_out(party, party.lost(*unreachable), observer)


def _asks_to_join(event: Received) -> bool:
    with suppress(RemoteProtocolError):
        return isinstance(codec.decode(event.payload, event.peer), Join | Ready)
    return False


def name_clients(clients: Iterable[int]) -> str:
    """Return "client 2" or "clients 2, 3"."""
    listed = sorted(clients)
    return ("client " if len(listed) == 1 else "clients ") + ", ".join(map(str, listed))
