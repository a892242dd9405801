"""Plain aggregation: the yardstick must itself be right."""

from dataclasses import replace

import numpy as np
import pytest

from fl.schemes.plain import PlainAggregator, PlainEncryptor, PlainSetup
from mphe.arithmetic.sampling import RandomSource
from mphe.errors import DuplicateMessage, MalformedMessage, RemoteProtocolError, UnexpectedSender
from mphe.roles.machine import Send
from mphe.roles.rounds.aggregator import Abandoned, Outdated, Summed
from mphe.wire.messages import Contribution, Join, RoundEnd, RoundStart

SOURCE = RandomSource(bytes(32))


def update(value: float, size: int = 3) -> bytes:
    return PlainEncryptor().encrypt(np.full(size, value, np.float32), SOURCE).body


def contribution(value: float, round: int = 1, size: int = 3) -> Contribution:
    return Contribution(round, b"", b"", update(value, size), b"")


def started() -> PlainAggregator:
    aggregator = PlainAggregator(3, 3, 2)
    outputs = aggregator.start_round(b"model", [1, 2, 3])
    assert [type(o.message) for o in outputs if isinstance(o, Send)] == 3 * [RoundStart]
    return aggregator


def test_sum_of_all() -> None:
    aggregator = started()
    outputs = [o for i in (1, 2, 3) for o in aggregator.receive(i, contribution(i))]
    summed = next(o for o in outputs if isinstance(o, Summed))
    assert summed.contributors == (1, 2, 3)
    assert np.array_equal(summed.total, [6, 6, 6])
    assert aggregator.waiting_for() == ()
    ends = [o.message for o in outputs if isinstance(o, Send)]
    assert ends == 3 * [RoundEnd(1, (1, 2, 3))]


def test_a_lost_client_is_left_out() -> None:
    aggregator = started()
    aggregator.receive(1, contribution(1))
    aggregator.receive(3, contribution(3))
    summed = next(o for o in aggregator.lost(2) if isinstance(o, Summed))
    assert summed.contributors == (1, 3)
    assert np.array_equal(summed.total, [4, 4, 4])


def test_too_few_updates_abandon_the_round() -> None:
    aggregator = started()
    aggregator.receive(1, contribution(1))
    assert isinstance(aggregator.deadline_passed()[0], Abandoned)
    assert isinstance(aggregator.receive(2, contribution(2))[0], Outdated)


@pytest.mark.parametrize(
    ("sender", "message", "error"),
    [
        (1, contribution(1, size=2), MalformedMessage),
        (1, contribution(float("nan")), MalformedMessage),
        (1, contribution(1, round=2), MalformedMessage),
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
    aggregator = started()
    aggregator.receive(2, contribution(2))
    with pytest.raises(error):
        aggregator.receive(sender, message)
    outputs = [o for i in (1, 3) for o in aggregator.receive(i, contribution(i))]
    assert any(isinstance(o, Summed) and np.array_equal(o.total, [6, 6, 6]) for o in outputs)


def test_setup_waits_for_everybody() -> None:
    setup = PlainSetup(3)
    setup.receive(2, Join(2, b"", b"", b""))
    assert setup.waiting_for() == (1, 3)
    with pytest.raises(UnexpectedSender):
        setup.receive(1, RoundEnd(1, ()))
    setup.lost(1)
    setup.deadline_passed()
    assert setup.waiting_for() == ()
