"""Rounds give the exact sum, for every size, mode and length."""

from __future__ import annotations

import numpy as np
import pytest

from mphe.errors import EncodingError
from tests.protocol.support import MODES, SIZES, assert_exact, ready


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("n", "t"), SIZES)
def test_decrypted_sum_equals_the_integer_sum(n: int, t: int, mode: str) -> None:
    simulation = ready(n, t, encryption=mode)
    for seed in (1, 2):
        updates = simulation.random_updates(seed=seed)
        assert_exact(simulation.run_round(updates), updates, *range(1, n + 1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", range(2, 7))
def test_sum_is_exact_without_robustness(n: int, mode: str) -> None:
    simulation = ready(n, n, robust=False, encryption=mode)
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates), updates, *range(1, n + 1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("length", [1, 2, 4097, 9001])
def test_sum_is_exact_for_awkward_lengths(length: int, mode: str) -> None:
    simulation = ready(3, 2, length, encryption=mode)
    updates = simulation.random_updates() if length > 1 else {i: np.array([i]) for i in (1, 2, 3)}
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3)


@pytest.mark.parametrize("mode", MODES)
def test_largest_values_of_all_clients_do_not_overflow_a_slot(mode: str) -> None:
    simulation = ready(5, 3, encryption=mode)
    updates = {i: np.full(60, (1 << 16) - 1) for i in range(1, 6)}
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4, 5)


def test_clients_that_hold_no_share_contribute() -> None:
    simulation = ready(5, 2, decryptors=3)
    updates = simulation.random_updates()
    assert set(simulation.decryptors) == {1, 2, 3}
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wrong", [-1, 1 << 16])
def test_encrypting_a_value_outside_its_slot_is_refused(mode: str, wrong: int) -> None:
    simulation = ready(2, 2, encryption=mode)
    values = np.zeros(60, np.int64)
    values[7] = wrong
    with pytest.raises(EncodingError):
        simulation.contributors[1].encrypt(values)
