"""Connects a server, bytes in and bytes out, with a transport and the clock."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from math import inf
from typing import Protocol

from mphe.errors import DuplicateMessage, RemoteProtocolError, TooLate
from mphe.net.events import Connected, Lost, Received
from mphe.net.events import Event as NetEvent
from mphe.net.transport import ServerTransport
from mphe.roles.machine import Event
from mphe.roles.rounds.aggregator import AggregatorState
from mphe.roles.rounds.outcomes import Excluded
from mphe.roles.step import Step
from mphe.run.conduct import SPARE_MESSAGES, Conduct
from mphe.run.deadlines import Deadlines, Wait
from mphe.run.departures import Departures, Kind
from mphe.run.party import Waiting
from mphe.wire import codec
from mphe.wire.messages import Join, Ready, Rejection

MAX_REASON = 1000
MAX_BACKLOG = 4096
"""Events that are taken at once, between two rounds or beside a loss; the rest waits its turn."""


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

    Who breaks the protocol is told so, disconnected, and kept out for a while that doubles each
    time. What nobody waits for is counted (mphe.run.conduct), and so are connections.

    Attributes:
        departures: who went missing or was left out, and how often.
        excused: clients whose next loss is no news: they leave this round on purpose.
    """

    def __init__(self, transport: ServerTransport, reporter: Reporter) -> None:
        """Speak through this transport, and tell people through this reporter."""
        self.transport = transport
        self.departures = Departures()
        self.round = 0
        self.excused: set[int] = set()
        self._reporter = reporter
        self._gone: set[int] = set()
        self._sent_away: set[int] = set()
        # Who is away comes back when it can, however quickly others answer.
        self._deadlines = Deadlines(patient=(AggregatorState.KEEPING,))
        self._conduct = Conduct()
        self._wait: Wait | None = None

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
        overtime = 0
        self._wait = wait = self._begin(party, seconds)
        while waiting := party.waiting_for():
            left = wait.ends - loop.time()
            # What waits when time is up is taken, each peer's in its turn, but not for ever.
            overtime += left <= 0
            event = None
            if overtime <= 2 * len(self.transport.connected) + 1:
                event = await self.transport.next_event(max(0.0, left))
            if event is not None:
                await self._handle(party, event, observer)
            else:
                self._give_up(party, waiting, wait.patience, observer)
            if event is None or party.step != wait.step:
                wait.ended(by_loss=isinstance(event, Lost))
                overtime = 0
                self._wait = wait = self._begin(party, seconds)
        self._wait = None

    def _begin(self, party: Waiting, seconds: float) -> Wait:
        """Begin to wait for what the party waits for."""
        now = asyncio.get_running_loop().time()
        wait = Wait(self._deadlines, party.step, seconds, now)
        self._tell_of_kept_sum(party, wait.patience)
        return wait

    def _tell_of_kept_sum(self, party: Waiting, seconds: float) -> None:
        """Say whom a wait is for that begins because too few decryptors are there."""
        kind, *_ = party.step
        if kind is AggregatorState.KEEPING and party.waiting_for():
            who = name_clients(party.waiting_for())
            self._reporter.say(
                f"waits up to {seconds:.3g} s for {who} to come back: "
                f"the sum of round {self.round} is kept"
            )

    def _give_up(
        self, party: Waiting, waiting: Collection[int], seconds: float, observer: Observer
    ) -> None:
        """Go on without those who have not answered."""
        self._reporter.warn(f"no answer from {name_clients(waiting)} within {seconds:.3g} s")
        for client in waiting:
            self._note(client, Kind.SILENT, f"no answer within {seconds:.3g} s")
        self._carry_out(party, party.deadline_passed(), observer)

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
            if loop.time() > deadline:
                return

    async def await_droppers(self, party: Waiting, clients: Iterable[int], seconds: float) -> None:
        """Wait for clients that left a round on purpose; who stays away is lost after all."""
        for client in sorted(clients):
            await self.await_return(party, {client}, seconds, Observer())
            if client not in self.transport.connected:
                self._depart(Lost(client, "left the round and did not come back"))

    async def catch_up(self, party: Waiting, observer: Observer) -> None:
        """Take what happened while the party was waiting for nobody."""
        for _ in range(MAX_BACKLOG):
            event = await self.transport.next_event(0)
            if event is None:
                return
            await self._handle(party, event, observer)

    async def _handle(self, party: Waiting, event: NetEvent, observer: Observer) -> None:
        if isinstance(event, Lost):
            await self._lost(party, event, observer)
        elif isinstance(event, Received):
            self._take(party, event, observer)
        elif isinstance(event, Connected):
            self._came(event)

    def _take(self, party: Waiting, event: Received, observer: Observer) -> None:
        """Give a message to the party; whoever sends a bad one, or too many, loses its place."""
        before, awaited = party.step, event.peer in party.waiting_for()
        started = time.perf_counter()
        try:
            step = party.receive(event.peer, event.payload)
        except RemoteProtocolError as error:
            if not _is_harmless(error, event) or self._is_too_much(event.peer):
                self._leave_out(party, event.peer, error.reason, observer)
            return
        observer.handled(step.events, time.perf_counter() - started)
        self._carry_out(party, step, observer)
        waiting = party.waiting_for()
        if awaited and (party.step != before or event.peer not in waiting):
            if self._wait is not None and self._wait.step == before:
                missing = len(waiting) if party.step == before else 0
                self._wait.answered(missing, asyncio.get_running_loop().time())
        elif self._is_too_much(event.peer):
            self._leave_out(party, event.peer, "it sends what nobody waits for", observer)

    def _is_too_much(self, client: int) -> bool:
        """Count a message that answers nothing; in the set-up one client answers for many."""
        spare = SPARE_MESSAGES + (0 if self.round else 4 * len(self.transport.connected))
        return self._conduct.is_too_much(client, self.round, spare)

    def _leave_out(self, party: Waiting, client: int, reason: str, observer: Observer) -> None:
        """Disconnect a client that broke the protocol; it loses its place, and may come back."""
        self._tell(client, f"client {client} is left out: {reason}", self._reporter.warn)
        self._note(client, Kind.REFUSED, reason)
        self._reject(client, reason, self._conduct.breached(client))
        self._carry_out(party, party.lost(client), observer)

    def _reject(self, peer: int, reason: str, seconds: float) -> None:
        """Tell a client that it takes no part, and why, instead of leaving it to wait."""
        self.transport.bar(peer, seconds)
        if self.transport.send(peer, codec.encode(Rejection(reason[:MAX_REASON]))):
            self.excused.add(peer)
            self.transport.disconnect(peer, reason)

    async def _lost(self, party: Waiting, event: Lost, observer: Observer) -> None:
        """Let the party go on without all who are gone by now, in one step."""
        gone = [event.peer]
        self._depart(event)
        back: NetEvent | None = None
        for _ in range(MAX_BACKLOG):
            more = await self.transport.next_event(0)
            if more is None:
                break
            if more.peer in gone and not isinstance(more, Lost):
                back = more  # over its next connection: that comes after its loss
                break
            if isinstance(more, Lost):
                gone.append(more.peer)
                self._depart(more)
            else:
                # What they sent before they vanished still counts.
                await self._handle(party, more, observer)
        self._carry_out(party, party.lost(*gone), observer)
        if back is not None:
            await self._handle(party, back, observer)

    def _depart(self, event: Lost) -> None:
        if event.peer in self.excused:
            self.excused.discard(event.peer)
            self._sent_away.add(event.peer)
            return
        self._tell(event.peer, f"client {event.peer} is gone: {event.reason}", self._reporter.warn)
        self._note(event.peer, Kind.GONE, event.reason)
        self._gone.add(event.peer)

    def _came(self, event: Connected) -> None:
        if event.peer in self._sent_away:  # that it comes back is no storm
            self._sent_away.discard(event.peer)
            return
        seconds = self._conduct.arrived(event.peer, asyncio.get_running_loop().time())
        if seconds:
            self.transport.bar(event.peer, seconds)
            self.transport.disconnect(event.peer, f"connects too often, again in {seconds:g} s")
        elif event.peer in self._gone:
            self._gone.discard(event.peer)
            self._tell(event.peer, f"client {event.peer} is back", self._reporter.say)

    def _tell(self, client: int, line: str, tell: Callable[[str], None]) -> None:
        """Tell people of a client, unless that would be all that they read."""
        said = self._conduct.line(client, line, asyncio.get_running_loop().time())
        if said is not None:
            tell(said)

    def _note(self, client: int, kind: Kind, reason: str) -> None:
        self.departures.note(client, self.round, kind, reason)

    def _carry_out(self, party: Waiting, step: Step, observer: Observer) -> None:
        """Send what is to be sent; a peer that cannot be reached is lost."""
        for happened in step.events:
            observer.happened(happened)
        unreachable = {
            receiver for receiver, data in step.mail if not self.transport.send(receiver, data)
        }
        for happened in step.events:
            if isinstance(happened, Excluded):
                self._exclude(happened)
        if unreachable:
            self._carry_out(party, party.lost(*unreachable), observer)

    def _exclude(self, event: Excluded) -> None:
        """Tell a client that it takes no further part, and let it in no more."""
        self._note(event.client, Kind.EXCLUDED, event.reason)
        self._reject(event.client, event.reason, inf)


def _is_harmless(error: RemoteProtocolError, event: Received) -> bool:
    """Return whether an honest client may have sent this: again, or before it heard of a loss.

    Who asks to be let in waits for an answer, and is told.
    """
    return isinstance(error, DuplicateMessage | TooLate) and not _asks_to_join(event)


def _asks_to_join(event: Received) -> bool:
    with suppress(RemoteProtocolError):
        return isinstance(codec.decode(event.payload, event.peer), Join | Ready)
    return False


def name_clients(clients: Iterable[int]) -> str:
    """Return "client 2" or "clients 2, 3"."""
    listed = sorted(clients)
    return ("client " if len(listed) == 1 else "clients ") + ", ".join(map(str, listed))
