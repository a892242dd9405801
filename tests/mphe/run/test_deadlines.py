"""Deadlines follow what was observed, within the limit, and recover from a wrong guess."""

import itertools

from mphe.run.deadlines import FACTOR, LEAST, RECENT, SLACK_SECONDS, Deadlines

LIMIT = 60.0


def after(*durations: float) -> float:
    deadlines = Deadlines()
    for seconds in durations:
        deadlines.took("collect", seconds)
    return deadlines.seconds("collect", LIMIT)


def test_the_first_steps_may_take_the_whole_limit() -> None:
    assert [after(*itertools.repeat(1.0, count)) for count in range(LEAST)] == LEAST * [LIMIT]


def test_later_steps_get_a_multiple_of_the_median() -> None:
    assert after(1.0, 1.0, 1.0) == FACTOR * 1.0 + SLACK_SECONDS
    assert after(10.0, 10.0) == FACTOR * 10.0 + SLACK_SECONDS


def test_the_limit_is_never_exceeded() -> None:
    assert after(30.0, 30.0) == LIMIT
    deadlines = Deadlines()
    deadlines.took("x", 1.0)
    deadlines.took("x", 1.0)
    assert deadlines.seconds("x", 2.0) == 2.0


def test_one_straggler_in_two_does_not_lengthen_the_wait() -> None:
    assert after(LIMIT, 1.0) == FACTOR * 1.0 + SLACK_SECONDS
    assert after(1.0, LIMIT, 1.0, LIMIT, 1.0) == FACTOR * 1.0 + SLACK_SECONDS


def test_when_everybody_becomes_slow_the_deadline_grows_to_the_limit() -> None:
    deadlines = Deadlines()
    for _ in range(RECENT):
        deadlines.took("collect", 1.0)
    waits = []
    for _ in range(3 * RECENT):
        waits.append(deadlines.seconds("collect", LIMIT))
        deadlines.took("collect", waits[-1])  # nobody was in time
    assert waits == sorted(waits)
    assert waits[-1] == LIMIT


def test_kinds_of_steps_are_apart() -> None:
    deadlines = Deadlines()
    for _ in range(RECENT):
        deadlines.took("decrypt", 0.1)
    assert deadlines.seconds("collect", LIMIT) == LIMIT
    assert deadlines.seconds("decrypt", LIMIT) < LIMIT


def test_a_patient_kind_always_has_the_whole_limit() -> None:
    deadlines = Deadlines(patient=("kept",))
    for _ in range(RECENT):
        deadlines.took("kept", 0.1)
    assert deadlines.seconds("kept", LIMIT) == LIMIT
