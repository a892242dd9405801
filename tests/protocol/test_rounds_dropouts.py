"""Rounds: which drop-outs they survive."""

from __future__ import annotations

import pytest

from mphe.roles.machine import Output, Send
from mphe.roles.rounds.outcomes import Abandoned
from mphe.wire.messages import Contribution, DecryptionShare
from tests.protocol.support import MODES, SIZES, aggregator_of, assert_exact, collecting, ready


def kinds(outputs: list[Output]) -> list[str]:
    """Return the names of events and sent messages."""
    return [type(o.message if isinstance(o, Send) else o).__name__ for o in outputs]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("n", "t"), SIZES)
def test_round_survives_every_permitted_number_of_dropouts_before_upload(
    n: int, t: int, mode: str
) -> None:
    simulation = ready(n, t, encryption=mode)
    updates = simulation.random_updates()
    for alive in range(n, t - 1, -1):
        present = {i: updates[i] for i in range(1, alive + 1)}
        # The others received the model; their absence shows at the deadline.
        end = simulation.run_round(present)
        assert_exact(end, updates, *range(1, alive + 1))
        simulation.vanish(alive)
    end = simulation.run_round(updates)
    assert isinstance(end, Abandoned) and end.round == n - t + 2
    assert end.missing == tuple(range(t, n + 1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("n", "t", "dropouts"), [(n, t, d) for n, t in SIZES for d in range(n - t + 2)]
)
def test_round_survives_exactly_n_minus_t_dropouts_before_decryption(
    n: int, t: int, dropouts: int, mode: str
) -> None:
    simulation = ready(n, t, encryption=mode)
    updates = simulation.random_updates()
    # The first contributors are asked first, so these are the ones that matter.
    for index in range(1, dropouts + 1):
        simulation.vanish_before(index, DecryptionShare)
    end = simulation.run_round(updates)
    if dropouts <= n - t:
        assert_exact(end, updates, *range(1, n + 1))
    else:
        assert isinstance(end, Abandoned)
        assert set(end.missing) <= set(range(1, dropouts + 1))


@pytest.mark.parametrize("told", [True, False])
def test_update_counts_although_its_sender_vanished_after_the_upload(told: bool) -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()
    simulation.vanish_after(1, Contribution, told=told)
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)


def test_without_robustness_one_dropout_abandons_the_round() -> None:
    simulation = ready(3, 3, robust=False)
    simulation.vanish_before(2, DecryptionShare)
    end = simulation.run_round(simulation.random_updates())
    assert isinstance(end, Abandoned) and end.missing == (2,)


def test_next_round_succeeds_after_an_abandoned_one() -> None:
    simulation = ready(3, 2)
    updates = simulation.random_updates()
    assert isinstance(simulation.run_round({1: updates[1]}), Abandoned)
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3)


def test_client_that_was_away_for_a_round_takes_part_in_the_next() -> None:
    simulation = ready(3, 2)
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates, present=[1, 2]), updates, 1, 2)
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3)


def test_round_without_anybody_is_abandoned_at_once() -> None:
    simulation = ready(3, 2)
    assert kinds(aggregator_of(simulation).start_round(b"", [])) == ["Abandoned"]


def test_round_closes_without_a_deadline_once_the_last_missing_client_is_lost() -> None:
    simulation = ready(3, 2)
    aggregator = aggregator_of(simulation)
    collecting(simulation, (1, 2))
    assert aggregator.waiting_for() == (3,)
    assert kinds(aggregator.lost(3)) == ["Closed", "DecryptionRequest", "DecryptionRequest"]


def test_losing_a_bystander_during_decryption_changes_nothing() -> None:
    simulation = ready(3, 2)
    aggregator = aggregator_of(simulation)
    collecting(simulation, (1, 2, 3))
    assert aggregator.waiting_for() == (1, 2)
    assert aggregator.lost(3) == []
    assert aggregator.waiting_for() == (1, 2)
