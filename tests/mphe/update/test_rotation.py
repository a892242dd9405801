"""The rotation: linear, of the same norm, undone exactly, with little padding, and even."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mphe.update.quantise import NO_COUNTS, dequantise, quantise
from mphe.update.rotation import Rotation, block_length, hadamard, padded_length


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_transform_is_hadamards_matrix() -> None:
    matrix = np.array([[1.0]])
    for _ in range(3):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    assert np.allclose(hadamard(np.eye(8, dtype=np.float32)), matrix / np.sqrt(8), atol=1e-6)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(size=st.integers(1, 5000), seed=st.integers(0, 99), round=st.integers(1, 1000))
def test_it_is_undone_and_keeps_the_norm(size: int, seed: int, round: int) -> None:
    rotation, values = Rotation(size), rng(seed).standard_normal(size).astype(np.float32)
    turned = rotation.apply(values, seed, round)
    assert turned.shape == (padded_length(size),) and turned.dtype == np.float32
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(values), rel=1e-5)
    assert np.allclose(rotation.undo(turned, seed, round), values, atol=1e-5)


def test_it_commutes_with_the_sum() -> None:
    rotation, (one, two) = Rotation(999), rng().standard_normal((2, 999)).astype(np.float32)
    together = rotation.apply(one, 1, 5) + rotation.apply(two, 1, 5)
    assert np.allclose(rotation.undo(together, 1, 5), one + two, atol=1e-5)


def test_signs_follow_the_seed_and_the_round() -> None:
    values = np.ones(64, np.float32)
    turned = Rotation(64).apply(values, 1, 1)
    assert np.array_equal(turned, Rotation(64).apply(values, 1, 1))
    assert not np.allclose(turned, Rotation(64).apply(values, 1, 2))
    assert not np.allclose(turned, Rotation(64).apply(values, 2, 1))


@pytest.mark.parametrize("size", [1, 2, 7, 50, 7_850, 49_915, 199_658])
def test_little_is_padded(size: int) -> None:
    assert padded_length(size) % block_length(size) == 0
    assert size <= padded_length(size) <= 1.016 * size


def test_a_layer_of_large_values_is_spread_over_everything() -> None:
    values = np.zeros(199_658, np.float32)
    values[100_000:102_000] = rng().standard_normal(2000)
    turned = Rotation(values.size).apply(values, 0, 1)
    spread = float(np.sqrt(np.mean(turned * turned)))
    assert np.abs(turned).max() < 6 * spread
    assert np.abs(values).max() > 25 * spread


def test_with_four_bits_it_saves_what_rounding_would_drown() -> None:
    # Many small values and a few large ones, as in gradients.
    values = (0.02 * rng().standard_normal(8192)).astype(np.float32)
    values[:16] = 1.0

    def lost(sent: np.ndarray) -> float:
        largest = float(np.abs(sent).max())
        integers = quantise(sent, largest, 4, NO_COUNTS, rng())
        rounded = dequantise(integers, 1, largest, 4).update
        return float(np.linalg.norm(rounded - sent) / np.linalg.norm(sent))

    assert lost(Rotation(values.size).apply(values, 0, 1)) < 0.4 < 0.8 < lost(values)
