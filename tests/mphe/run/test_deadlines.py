"""Deadlines follow the quickest half, within the limit, and recover from a wrong guess."""

import itertools

from mphe.run.deadlines import FACTOR, LEAST, RECENT, SLACK_SECONDS, Deadlines, Wait

LIMIT = 60.0


def after(*durations: float) -> float:
    deadlines = Deadlines()
    for seconds in durations:
        deadlines.took("collect", seconds)
    return deadlines.seconds("collect", LIMIT)


def test_the_first_steps_may_take_the_whole_limit() -> None:
    assert [after(*itertools.repeat(1.0, count)) for count in range(LEAST)] == LEAST * [LIMIT]


def test_the_quickest_half_of_a_later_step_gets_a_multiple_of_the_median() -> None:
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


def test_kinds_of_steps_are_apart() -> None:
    deadlines = Deadlines()
    for _ in range(RECENT):
        deadlines.took("decrypt", 0.1)
    assert deadlines.seconds("collect", LIMIT) == LIMIT
    assert deadlines.seconds("decrypt", LIMIT) < LIMIT


# -- one wait --------------------------------------------------------------------------------------


def wait_for(deadlines: Deadlines, answers: list[float]) -> tuple[float, int]:
    """Let clients answer after so many seconds each; return how long it took, and who was late."""
    wait = Wait(deadlines, ("collect",), LIMIT, 100.0)
    for place, seconds in enumerate(sorted(answers)):
        if 100.0 + seconds > wait.ends:
            wait.ended(by_loss=False)
            return wait.patience, len(answers) - place
        wait.answered(len(answers) - place - 1, 100.0 + seconds)
    wait.ended(by_loss=False)
    return max(answers), 0


def rounds(count: int, answers: list[float]) -> list[tuple[float, int]]:
    """Return how each of so many waits ended."""
    deadlines = Deadlines()
    return [wait_for(deadlines, answers) for _ in range(count)]


def test_just_in_time_answers_do_not_stretch_the_wait() -> None:
    """Attack: some answer half a second before the limit, always, and are never stragglers."""
    for late in (1, 3, 4):
        ends = rounds(12, (8 - late) * [1.0] + late * [LIMIT - 0.5])
        assert all(end == (LIMIT - 0.5, 0) for end in ends[:LEAST])
        assert all(end == (FACTOR + SLACK_SECONDS, late) for end in ends[LEAST:])


def test_three_times_slower_hardware_stays_inside() -> None:
    for seconds in (0.01, 1.0, 15.0):
        assert all(late == 0 for _, late in rounds(12, 4 * [seconds] + 4 * [3 * seconds]))


def test_a_step_that_is_slower_for_half_is_so_for_the_others() -> None:
    deadlines = Deadlines()
    for _ in range(RECENT):
        wait_for(deadlines, 8 * [0.1])
    assert wait_for(deadlines, 4 * [5.0] + 4 * [15.0]) == (15.0, 0)


def test_when_all_become_slow_one_round_is_lost() -> None:
    deadlines = Deadlines()
    for _ in range(RECENT):
        wait_for(deadlines, 8 * [0.1])
    late = [wait_for(deadlines, 8 * [30.0])[1] for _ in range(2 * RECENT)]
    assert late == [8] + (2 * RECENT - 1) * [0]


def test_who_is_lost_has_not_answered() -> None:
    """Attack: half of the clients vanish at once, so that the others seem to be slow."""
    deadlines = Deadlines()
    for _ in range(LEAST):
        wait_for(deadlines, 8 * [10.0])
    wait = Wait(deadlines, ("collect",), LIMIT, 0.0)
    wait.answered(3, 0.1)  # four are lost, one has answered, three are missing
    assert wait.ends == FACTOR * 10.0 + SLACK_SECONDS
    wait.answered(2, 10.0)
    assert wait.ends == FACTOR * 10.0 + SLACK_SECONDS


def test_a_patient_kind_always_has_the_whole_limit() -> None:
    deadlines = Deadlines(patient=("kept",))
    for _ in range(RECENT):
        deadlines.took("kept", 0.1)
    assert deadlines.seconds("kept", LIMIT) == LIMIT
    wait = Wait(deadlines, ("kept",), LIMIT, 0.0)
    wait.answered(0, 0.1)
    assert wait.ends == LIMIT
