"""Plain aggregation: the yardstick must itself be right."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fl.schemes.plain import PlainEncryptor, PlainServer
from mphe.arithmetic.sampling import RandomSource
from mphe.errors import DuplicateMessage, MalformedMessage, RemoteProtocolError, UnexpectedSender
from mphe.roles.machine import Event
from mphe.roles.rounds.collecting import Outdated
from mphe.roles.rounds.outcomes import Abandoned, Summed
from mphe.roles.step import Step
from mphe.server import SessionReady
from mphe.wire import codec
from mphe.wire.messages import SERVER, Contribution, Join, RoundEnd, RoundStart

SOURCE = RandomSource(bytes(32))


def update(value: float, size: int = 3) -> bytes:
    return PlainEncryptor().encrypt(np.full(size, value, np.float32), SOURCE).body


def contribution(value: float, round: int = 1, size: int = 3) -> Contribution:
    return Contribution(round, b"", b"", update(value, size), b"")


def started() -> PlainServer:
    server = PlainServer(3, 3, 2)
    server.deadline_passed()  # nobody joins, but they may come later
    assert kinds(server.start_round(b"model", [1, 2, 3])) == 3 * [RoundStart]
    return server


def kinds(step: Step) -> list[type]:
    return [type(codec.decode(data, SERVER)) for _, data in step.mail]


def join_of(index: int) -> Callable[[PlainServer], Step]:
    """Return what lets a client join."""
    return lambda server: server.receive(index, codec.encode(Join(index, b"", b"", b"")))


def events(server: PlainServer, *said: tuple[int, Contribution]) -> list[Event]:
    """Return what happens as clients say something."""
    steps = [server.receive(sender, codec.encode(message)) for sender, message in said]
    return [event for step in steps for event in step.events]


def test_sum_of_all() -> None:
    server = started()
    steps = [server.receive(i, codec.encode(contribution(i))) for i in (1, 2, 3)]
    summed = next(e for step in steps for e in step.events if isinstance(e, Summed))
    assert summed.contributors == (1, 2, 3)
    assert np.array_equal(summed.total, [6, 6, 6])
    assert server.waiting_for() == ()
    ends = [codec.decode(data, SERVER) for _, data in steps[-1].mail]
    assert ends == 3 * [RoundEnd(1, (1, 2, 3))]


def test_a_lost_client_is_left_out() -> None:
    server = started()
    events(server, (1, contribution(1)), (3, contribution(3)))
    summed = next(e for e in server.lost(2).events if isinstance(e, Summed))
    assert summed.contributors == (1, 3)
    assert np.array_equal(summed.total, [4, 4, 4])


def test_too_few_updates_abandon_the_round() -> None:
    server = started()
    events(server, (1, contribution(1)))
    abandoned = server.deadline_passed().events[0]
    assert isinstance(abandoned, Abandoned)
    assert (abandoned.begun, abandoned.contributors, abandoned.missing) == (False, (1,), (2, 3))
    assert isinstance(events(server, (2, contribution(2)))[0], Outdated)


@pytest.mark.parametrize(
    ("sender", "message", "error"),
    [
        (1, contribution(1, size=2), MalformedMessage),
        (1, contribution(float("nan")), MalformedMessage),
        (1, contribution(1, round=2), RemoteProtocolError),
        (1, replace(contribution(1), transcript=bytes(32)), MalformedMessage),
        (1, replace(contribution(1), segment=1), MalformedMessage),
        (4, contribution(1), UnexpectedSender),
        (2, contribution(1), DuplicateMessage),
        (1, RoundEnd(1, ()), RemoteProtocolError),
    ],
)
def test_wrong_messages_change_nothing(
    sender: int, message: Contribution, error: type[Exception]
) -> None:
    server = started()
    events(server, (2, contribution(2)))
    with pytest.raises(error):
        events(server, (sender, message))
    happened = events(server, (1, contribution(1)), (3, contribution(3)))
    assert any(isinstance(e, Summed) and np.array_equal(e.total, [6, 6, 6]) for e in happened)


@pytest.mark.parametrize("last", [lambda server: server.lost(3), join_of(3)])
def test_rounds_may_begin_when_nobody_is_waited_for(last: Callable[[PlainServer], Step]) -> None:
    server = PlainServer(3, 3, 2)
    assert [join_of(index)(server).events for index in (1, 2)] == [[], []]
    assert [type(event) for event in last(server).events] == [SessionReady]
    assert server.deadline_passed().events == []


def test_the_start_waits_for_everybody() -> None:
    server = PlainServer(3, 3, 2)
    server.receive(2, codec.encode(Join(2, b"", b"", b"")))
    assert server.waiting_for() == (1, 3)
    with pytest.raises(UnexpectedSender):
        server.receive(1, codec.encode(RoundEnd(1, ())))
    server.lost(1)
    server.deadline_passed()
    assert server.waiting_for() == ()
