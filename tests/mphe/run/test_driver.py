"""The driver keeps the order that matters: what a peer said, that it is gone, what it says anew."""

import asyncio
from io import StringIO
from math import inf
from typing import Any

import msgpack
import pytest
from rich.console import Console

from fl.report.progress import Display
from mphe.errors import DuplicateMessage, RemoteProtocolError, TooLate
from mphe.net.events import Connected, Event, Lost, Received
from mphe.plan.agreement import PROTOCOL_VERSION
from mphe.roles.rounds.aggregator import AggregatorState
from mphe.roles.rounds.outcomes import Excluded
from mphe.roles.step import Step
from mphe.run.conduct import ARRIVALS_AT_ONCE, SPARE_MESSAGES
from mphe.run.deadlines import SLACK_SECONDS
from mphe.run.driver import Driver, Observer
from mphe.wire import codec
from mphe.wire.codec import MAX_TEXT
from mphe.wire.messages import Finish, Join, Message, Ready, Rejection
from tests.patience import scaled


class Script:
    """A transport that reports what the test wrote down, then nothing."""

    def __init__(self, *events: Event) -> None:
        self._events = list(events)
        self.told: list[tuple[int, Message]] = []
        self.barred: list[tuple[int, float]] = []

    connected = frozenset({1, 2, 3})

    async def next_event(self, timeout: float | None) -> Event | None:
        return self._events.pop(0) if self._events else None

    def bar(self, peer: int, seconds: float) -> None:
        self.barred.append((peer, seconds))

    def send(self, peer: int, payload: bytes) -> bool:
        self.told.append((peer, codec.decode(payload, 0)))
        return True

    def disconnect(self, peer: int, reason: str) -> None:
        self._events.append(Lost(peer, reason))


HARMLESS = {"again": DuplicateMessage, "too late": TooLate}


class Recorder:
    """A role that waits until its deadline and writes down what it hears."""

    step = ("only",)

    def __init__(self) -> None:
        self.heard: list[object] = []
        self._over = False

    def receive(self, sender: int, data: bytes) -> Step:
        message = codec.decode(data, sender)
        if isinstance(message, Finish) and message.reason in HARMLESS:
            raise HARMLESS[message.reason](sender, message.reason)
        if not isinstance(message, Finish) or message.reason == "bad":
            raise RemoteProtocolError(sender, "bad")
        self.heard.append((sender, message.reason))
        return Step()

    def lost(self, *peers: int) -> Step:
        self.heard.append(set(peers))
        return Step()

    def deadline_passed(self) -> Step:
        self._over = True
        return Step()

    def waiting_for(self) -> tuple[int, ...]:
        return () if self._over else (1,)


def says(peer: int, text: str) -> Received:
    return Received(peer, codec.encode(Finish(text)))


@pytest.mark.parametrize("quiet", [False, True])
def test_losses_and_returns_are_said_as_they_happen(quiet: bool) -> None:
    file = StringIO()
    events: list[Event] = [Connected(1), Lost(1, "reset"), Connected(1), Connected(2)]
    transport: Any = Script(*events, Lost(1, "again"), says(2, "bad"))
    driver = Driver(transport, Display(1, Console(file=file, soft_wrap=True), quiet))
    asyncio.run(driver.run(Recorder(), Step(), 60, Observer()))
    assert file.getvalue().splitlines() == [
        "client 1 is gone: reset",
        *([] if quiet else ["client 1 is back"]),
        "client 1 is gone: again",
        "client 2 is left out: bad",
        "no answer from client 1 within 60 s",
    ]


def hear(*events: Event) -> tuple[list[object], Driver]:
    transport: Any = Script(*events)
    driver, role = Driver(transport, Display(1, Console(quiet=True))), Recorder()
    asyncio.run(driver.run(role, Step(), 60, Observer()))
    return role.heard, driver


class Slow:
    """A transport that falls silent; then it writes down how long it was asked to wait."""

    def __init__(self, *events: Event) -> None:
        self._events = list(events)
        self.connected = frozenset({1})
        self.waits: list[float] = []

    async def next_event(self, timeout: float | None) -> Event | None:
        if self._events:
            return self._events.pop(0)
        self.waits.append(timeout or 0.0)
        return None


class Steps(Recorder):
    """A role of as many steps of one kind as there are answers, and one more."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    @property
    def step(self) -> tuple[object, ...]:  # type: ignore[override]
        return "collect", self.number

    def receive(self, sender: int, data: bytes) -> Step:
        self.number += 1
        return Step()


def test_deadlines_follow_the_steps_before() -> None:
    transport: Any = Slow(*[says(1, "quick") for _ in range(3)])
    driver = Driver(transport, Display(1, Console(quiet=True)))
    # In the same run of a role, and in the next.
    asyncio.run(driver.run(Steps(), Step(), 60, Observer()))
    asyncio.run(driver.run(Steps(), Step(), 60, Observer()))
    # Nobody answered the last step of the first: that may take longer now.
    assert transport.waits == [pytest.approx(SLACK_SECONDS, abs=1), pytest.approx(60, abs=1)]
    (departure,) = driver.departures
    assert "within 60 s" in departure.reason and departure.times == 2


def test_the_loss_of_a_peer_is_no_observation() -> None:
    transport: Any = Slow()
    driver = Driver(transport, Display(1, Console(quiet=True)))

    class Losing(Steps):
        def lost(self, *peers: int) -> Step:
            self.number += 1
            return self.deadline_passed()

    for peer in range(1, 4):
        script: Any = Script(Lost(peer, "x"))
        driver.transport = script
        asyncio.run(driver.run(Losing(), Step(), 60, Observer()))
    driver.transport = transport
    asyncio.run(driver.run(Steps(), Step(), 60, Observer()))
    assert transport.waits == [pytest.approx(60, abs=1)]


def test_peers_that_vanish_together_are_lost_in_one_step() -> None:
    heard, _ = hear(Lost(1, "x"), Lost(2, "y"), Lost(3, "z"))
    assert heard == [{1, 2, 3}]


def test_what_a_peer_sent_before_it_vanished_still_counts() -> None:
    heard, _ = hear(Lost(1, "x"), says(2, "share"), Lost(2, "y"))
    assert heard == [(2, "share"), {1, 2}]


def test_what_a_peer_says_over_its_next_connection_comes_after_its_loss() -> None:
    heard, _ = hear(Lost(1, "x"), Connected(1), says(1, "join"), says(2, "share"))
    assert heard == [{1}, (1, "join"), (2, "share")]


def test_a_bad_message_and_garbage_cost_their_sender_only() -> None:
    heard, driver = hear(says(1, "bad"), Received(2, b"\xff"), says(3, "good"))
    # The connections of both end, which is no news.
    assert heard == [{1}, {2}, (3, "good"), {1, 2}]
    departures = list(driver.departures)
    assert [departure.client for departure in departures] == [1, 2, 1]
    assert departures[-1].reason.startswith("no answer")


def refusals(round: int, *events: Event) -> list[tuple[int, Message]]:
    """Return what a driver tells the peers that send something bad in that round."""
    transport: Any = Script(*events)
    driver = Driver(transport, Display(1, Console(quiet=True)))
    driver.round = round
    asyncio.run(driver.run(Recorder(), Step(), 60, Observer()))
    told: list[tuple[int, Message]] = transport.told
    return told


def test_who_is_refused_before_the_first_round_hears_why_at_once() -> None:
    assert refusals(0, says(1, "bad"), says(2, "good")) == [(1, Rejection("bad"))]
    ((peer, rejection),) = refusals(0, Received(2, b"\xff"))
    assert peer == 2 and isinstance(rejection, Rejection) and "not a message" in rejection.reason


def test_a_long_reason_is_cut_so_that_it_can_be_told() -> None:
    class Talkative(Recorder):
        def receive(self, sender: int, data: bytes) -> Step:
            raise RemoteProtocolError(sender, "x" * (MAX_TEXT + 1))

    transport: Any = Script(says(1, "anything"))
    driver = Driver(transport, Display(1, Console(quiet=True)))
    asyncio.run(driver.run(Talkative(), Step(), 60, Observer()))
    ((_, rejection),) = transport.told
    assert isinstance(rejection, Rejection) and set(rejection.reason) == {"x", "…"}


def test_a_bad_message_in_a_round_costs_the_connection() -> None:
    told = refusals(3, says(1, "bad"), Received(2, b"\xff"))
    assert [peer for peer, _ in told] == [1, 2]
    assert told[0][1] == Rejection("bad")


@pytest.mark.parametrize("message", [Join(1, b"", b"", b""), Ready(b"", ())])
def test_who_comes_later_and_is_refused_hears_why_at_once(message: Message) -> None:
    event = Received(1, codec.encode(message))
    assert refusals(3, event) == [(1, Rejection("bad"))]


def test_who_speaks_another_version_hears_so_whenever_it_comes() -> None:
    data = msgpack.packb([PROTOCOL_VERSION - 1, 0, 1, b"", b"", b""])
    ((peer, rejection),) = refusals(3, Received(1, data))
    assert peer == 1 and isinstance(rejection, Rejection)
    assert f"this program speaks {PROTOCOL_VERSION}" in rejection.reason


# -- what one client cannot do -------------------------------------------------------------------


def driven(round: int, role: Recorder, *events: Event) -> tuple[Script, Driver, list[str]]:
    """Return what became of these events in a round: transport, driver and lines for people."""
    file, script = StringIO(), Script(*events)
    transport: Any = script
    driver = Driver(transport, Display(1, Console(file=file, soft_wrap=True)))
    driver.round = round
    asyncio.run(driver.run(role, Step(), 60, Observer()))
    return script, driver, file.getvalue().splitlines()


def test_who_breaks_the_protocol_again_is_kept_out_ever_longer() -> None:
    script, _, _ = driven(3, Recorder(), *[says(2, "bad") for _ in range(9)])
    assert script.barred == [(2, float(min(64, 2**times))) for times in range(9)]


@pytest.mark.parametrize("text", ["again", "too late"])
def test_what_an_honest_client_may_send_costs_nothing(text: str) -> None:
    role = Recorder()
    script, driver, _ = driven(3, role, *[says(2, text) for _ in range(SPARE_MESSAGES)])
    assert not script.told and not script.barred and not role.heard
    assert [departure.client for departure in driver.departures] == [1]


@pytest.mark.parametrize("text", ["again", "too late", "good"])
def test_what_nobody_waits_for_is_a_breach_when_there_is_too_much_of_it(text: str) -> None:
    """Client 2 is not waited for; whether its messages are right or late, they cost time."""
    role = Recorder()
    script, _, _ = driven(3, role, *[says(2, text) for _ in range(SPARE_MESSAGES + 1)])
    ((peer, rejection),) = script.told
    assert peer == 2 and isinstance(rejection, Rejection)
    assert script.barred == [(2, 1.0)]
    assert {2} in role.heard


def test_the_next_round_allows_as_much_again() -> None:
    transport: Any = Script()
    driver = Driver(transport, Display(1, Console(quiet=True)))
    for driver.round in range(1, 5):
        script: Any = Script(*[says(2, "good") for _ in range(SPARE_MESSAGES)])
        driver.transport = script
        asyncio.run(driver.run(Recorder(), Step(), 60, Observer()))
        assert script.told == []


def test_an_answer_that_is_waited_for_is_never_too_much() -> None:
    class Counting(Steps):
        def waiting_for(self) -> tuple[int, ...]:
            return (1,) if self.number < 10 * SPARE_MESSAGES else ()

    script, _, _ = driven(3, Counting(), *[says(1, "x") for _ in range(10 * SPARE_MESSAGES)])
    assert not script.told and not script.barred


def test_who_connects_in_a_storm_waits_and_is_let_in_again() -> None:
    storm = [Connected(2) for _ in range(ARRIVALS_AT_ONCE + 6)]
    script, _, _ = driven(3, Recorder(), *storm)
    assert script.barred == [(2, seconds) for seconds in (1.0, 2.0, 4.0, 8.0, 8.0, 8.0)]
    assert script.told == []  # it is not told off: a bad link may be all that is wrong


def test_who_leaves_rounds_on_purpose_may_come_back_each_time() -> None:
    driver = Driver(Script(), Display(1, Console(quiet=True)))  # type: ignore[arg-type]
    for driver.round in range(1, 5 * ARRIVALS_AT_ONCE):
        script: Any = Script(Lost(2, "left"), Connected(2))
        driver.transport, driver.excused = script, {2}
        asyncio.run(driver.run(Recorder(), Step(), 60, Observer()))
        assert not script.barred


def test_a_hundred_thousand_breaches_are_a_few_lines_and_one_entry() -> None:
    events = [event for _ in range(20_000) for event in (says(2, "bad"), Lost(2, "x"))]
    _, driver, lines = driven(3, Recorder(), *events)
    assert len(lines) < 20
    refused, gone, silent = sorted(driver.departures, key=lambda entry: -entry.times)
    assert (refused.client, refused.times, refused.reason) == (2, 20_000, "bad")
    assert str(refused) == "client 2 20,000 times, last in round 3: bad"
    assert (gone.times, silent.times) == (20_000, 1)


class Endless(Script):
    """A transport that has always one more event."""

    async def next_event(self, timeout: float | None) -> Event | None:
        await asyncio.sleep(0)
        return says(2, "good")


class Patient(Recorder):
    """A role that takes whatever it is sent, and gets no answer from client 1."""

    def receive(self, sender: int, data: bytes) -> Step:
        return Step()


def test_no_flood_holds_a_deadline_up() -> None:
    transport: Any = Endless()
    driver, role = Driver(transport, Display(1, Console(quiet=True))), Patient()

    async def play() -> None:
        async with asyncio.timeout(scaled(30)):
            await driver.run(role, Step(), 0.2, Observer())
            await driver.await_return(role, {7}, 0.2, Observer())
            await driver.catch_up(role, Observer())

    asyncio.run(play())
    assert [departure.client for departure in driver.departures if departure.client == 1] == [1]


def test_what_waits_when_time_is_up_still_counts() -> None:
    """A server that was busy itself does not blame those who answered meanwhile."""
    transport: Any = Script(says(3, "x"), says(1, "x"))
    driver = Driver(transport, Display(1, Console(quiet=True)))

    class One(Steps):
        def waiting_for(self) -> tuple[int, ...]:
            return () if self.number == 2 or self._over else (1,)

    role = One()
    asyncio.run(driver.run(role, Step(), 0, Observer()))
    assert role.number == 2 and list(driver.departures) == []


def test_who_is_excluded_hears_why_and_is_never_let_in_again() -> None:
    class Finding(Recorder):
        def receive(self, sender: int, data: bytes) -> Step:
            return Step([], [Excluded(2, "it cheated")])

    script, driver, _ = driven(3, Finding(), says(3, "x"))
    assert script.told == [(2, Rejection("it cheated"))]
    assert script.barred == [(2, inf)]
    assert "client 2 in round 3: it cheated" in map(str, driver.departures)


def test_what_a_peer_says_reaches_no_terminal_as_it_is() -> None:
    class Quoting(Recorder):
        def receive(self, sender: int, data: bytes) -> Step:
            raise RemoteProtocolError(
                sender, "says x\x1b]0;owned\x1b[2J\nround 7\u202e\r" + 5000 * "y"
            )

    script, driver, lines = driven(3, Quoting(), says(2, "x"))
    ((_, rejection),) = script.told
    assert isinstance(rejection, Rejection)
    for text in (*lines, rejection.reason, *map(str, driver.departures)):
        assert text.isprintable() and len(text) < 1100
    assert len(lines) == 2


class Keeping(Recorder):
    """Keeps the sum of round 5 until the deadline."""

    step = (AggregatorState.KEEPING, 5, 1)  # type: ignore[assignment]


def test_a_kept_sum_is_said_and_waited_for_as_long_as_may_be() -> None:
    """Claim: however short waits have been, those who must come back have the whole limit."""
    file = StringIO()
    transport: Any = Script()
    driver = Driver(transport, Display(1, Console(file=file, soft_wrap=True)))
    driver.round = 5
    for _ in range(9):
        driver._deadlines.took(AggregatorState.KEEPING, 0.01)
    asyncio.run(driver.run(Keeping(), Step(), 60, Observer()))
    assert file.getvalue().splitlines() == [
        "waits up to 60 s for client 1 to come back: the sum of round 5 is kept",
        "no answer from client 1 within 60 s",
    ]
