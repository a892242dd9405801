"""Quantisation: unbiased, bounded, and its sums mean what single values mean."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mphe.update.quantise import (
    Counts,
    Spread,
    dequantise,
    first_range,
    next_range,
    payload_length,
    quantise,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(deadline=None, derandomize=True)
@given(
    bits=st.integers(4, 24),
    clients=st.integers(1, 9),
    clip_range=st.floats(1e-3, 10),
    seed=st.integers(0, 99),
)
def test_mean_of_sums_is_the_mean_of_updates_within_one_step(
    bits: int, clients: int, clip_range: float, seed: int
) -> None:
    updates = rng(seed).uniform(-clip_range, clip_range, (clients, 37)).astype(np.float32)
    total = sum(
        quantise(u, clip_range, bits, Counts(0.5), rng(seed + i)) for i, u in enumerate(updates)
    )
    mean = dequantise(np.asarray(total), clients, clip_range, bits)
    step = 2 * clip_range / ((1 << bits) - 1)
    assert np.abs(mean.update - updates.mean(axis=0)).max() <= step + 1e-6 * clip_range
    assert mean.clipped == 0
    assert mean.loss == pytest.approx(0.5, abs=1e-3)


def test_every_value_fits_its_bits_even_beyond_the_range() -> None:
    update = np.array([-9, -1, 0, 1, 9], np.float32)
    values = quantise(update, 1.0, 8, Counts(1e9), rng())
    assert values.min() >= 0
    assert values.max() <= 255
    assert values.size == payload_length(5, 8)


def test_values_beyond_the_range_are_counted_over_all_clients() -> None:
    update = np.array([-9, -1, 0, 1, 9], np.float32)
    total = quantise(update, 1.0, 8, Counts(0.0), rng(1)) + quantise(
        update, 1.0, 8, Counts(0.0), rng(2)
    )
    assert dequantise(total, 2, 1.0, 8).clipped == 4


def test_a_count_larger_than_one_slot_survives_the_sum() -> None:
    update = np.full(70_000, 5, np.float32)
    total = 3 * quantise(update, 1.0, 16, Counts(0.0), rng())
    assert dequantise(total, 3, 1.0, 16).clipped == 3 * 70_000


def test_rounding_is_unbiased() -> None:
    update = np.full(200_000, 0.3, np.float32)
    mean = dequantise(quantise(update, 1.0, 4, Counts(0.0), rng()), 1, 1.0, 4)
    # Deterministic rounding would be off by 0.0333; the mean of 200,000 has σ = 1.4e-4.
    assert abs(float(mean.update.mean()) - 0.3) < 1e-3


def test_clip_range_widens_when_values_are_clipped_and_narrows_slowly_otherwise() -> None:
    update = np.full(1000, 0.01, np.float32)
    assert next_range(1.0, Spread.of(update, 900, 3), 3.0, 16) == 1.5
    assert next_range(2.0, Spread.of(update, 900, 3), 2.5, 16) == 2.5
    assert next_range(1.0, Spread.of(update, 0, 3), 3.0, 16) == 0.5
    assert next_range(0.05, Spread.of(update, 0, 3), 3.0, 16) == pytest.approx(0.04)
    assert next_range(1e-6, Spread.of(0 * update, 0, 3), 3.0, 16) > 0


def test_with_coarse_steps_clip_range_narrows_until_the_first_values_leave_it() -> None:
    update = rng().standard_normal(1000).astype(np.float32)
    # With 4 bits steps of 6/7 are no small part of a value: it is not widened to the headroom.
    assert next_range(6.0, Spread.of(update, 0, 3), 30.0, 4) == pytest.approx(4.8)
    assert next_range(6.0, Spread.of(update, 0, 3), 30.0, 16) > 12
    assert next_range(4.8, Spread.of(update, 0, 3), 30.0, 4) == pytest.approx(3.84)
    # The tolerated are few enough to keep it, more are not.
    many = np.resize(update, 100_000)
    assert next_range(3.84, Spread.of(many, 30, 3), 30.0, 4) == 3.84
    assert next_range(3.84, Spread.of(many, 31, 3), 30.0, 4) == pytest.approx(5.76)


def test_the_first_range_suits_the_bits() -> None:
    assert first_range(3.0, 200_000, 16) == 3.0
    assert first_range(3.0, 50, 4) == 3.0
    assert first_range(3.0, 200_000, 4) == pytest.approx(8 * 3 / math.sqrt(200_000))


def test_small_values_cost_little_noise() -> None:
    update = np.full(10_000, 0.01, np.float32)
    mean = dequantise(quantise(update, 1.0, 4, Counts(0.0), rng()), 1, 1.0, 4).update
    # |v|·step; with zero between two levels it would be step²/4, three times as much.
    assert np.mean((mean - update) ** 2) == pytest.approx(0.01 / 7, rel=0.2)
    zero = quantise(0 * update, 1.0, 4, Counts(0.0), rng())
    assert not dequantise(zero, 1, 1.0, 4).update.any()
