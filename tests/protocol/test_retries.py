"""Rounds: which decryptors are asked, and whom a retry asks instead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mphe.roles.machine import Send
from mphe.roles.rounds.aggregator import Aggregator
from mphe.roles.rounds.outcomes import Abandoned, Summed
from mphe.wire.messages import DecryptionRequest, DecryptionShare, Refusal
from tests.protocol.support import aggregator_of, assert_exact, collecting, ready
from tests.simulation import Simulation, altering


def attempts_of(simulation: Simulation) -> dict[int, tuple[int, ...]]:
    """Return the active set of every attempt of a training round."""
    requests = [m for _, _, m in simulation.log if isinstance(m, DecryptionRequest) and m.round]
    return {m.attempt: m.active for m in requests}


@pytest.mark.parametrize("told", [True, False])
def test_retry_asks_another_set_under_the_next_attempt(told: bool) -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()
    simulation.vanish_before(2, DecryptionShare, told=told)
    end = simulation.run_round(updates)
    assert_exact(end, updates, 1, 2, 3, 4)
    assert isinstance(end, Summed) and end.attempts == 2
    assert attempts_of(simulation) == {1: (1, 2), 2: (1, 3)}


def test_refusing_decryptor_is_replaced() -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()
    simulation.intercept = altering(DecryptionShare, lambda m: Refusal(1, 1, "no"), sender=1)
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    assert attempts_of(simulation) == {1: (1, 2), 2: (2, 3)}


@pytest.mark.parametrize(("limit", "completes"), [(1, False), (2, False), (3, True)])
def test_max_attempts_bounds_the_retries(limit: int, completes: bool) -> None:
    simulation = ready(5, 2, max_attempts=limit)
    updates = simulation.random_updates()
    for index in (2, 3):
        simulation.vanish_before(index, DecryptionShare, told=True)
    end = simulation.run_round(updates)
    assert isinstance(end, Summed) is completes
    assert len(attempts_of(simulation)) == limit


def test_decryptors_that_contributed_are_asked_before_those_that_did_not() -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()
    simulation.run_round({i: updates[i] for i in (3, 4)})
    assert attempts_of(simulation) == {1: (3, 4)}


def test_unconfirmed_decryptor_is_never_asked() -> None:
    simulation = ready(4, 2)
    simulation.aggregator = Aggregator(
        replace(aggregator_of(simulation).session, decryptors=(1, 2, 4))
    )
    simulation.vanish_before(1, DecryptionShare)
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    assert attempts_of(simulation) == {1: (1, 2), 2: (2, 4)}


def test_clients_lost_together_cost_one_attempt() -> None:
    simulation = ready(5, 2)
    aggregator = aggregator_of(simulation)
    collecting(simulation, (1, 2, 3, 4, 5))
    (first, *_) = sent = [o.message for o in aggregator.lost(1, 2) if isinstance(o, Send)]
    assert isinstance(first, DecryptionRequest) and len(sent) == 2
    assert (first.attempt, first.active) == (2, (3, 4))


def test_decryptor_that_failed_is_asked_last_in_the_next_round() -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()
    simulation.vanish_before(1, DecryptionShare)
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    simulation.silent.clear()
    simulation.log.clear()
    # Client 1 missed the end of the round; the next one does not mind.
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    assert attempts_of(simulation) == {1: (2, 3)}


def test_silent_decryptor_is_not_asked_again_in_the_same_round() -> None:
    simulation = ready(3, 3)
    simulation.vanish_before(2, DecryptionShare)
    end = simulation.run_round(simulation.random_updates())
    assert isinstance(end, Abandoned) and end.missing == (2,)
    assert end.attempts == 1
