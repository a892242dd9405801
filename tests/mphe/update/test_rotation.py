"""The rotation: linear, of the same norm, undone exactly, with little padding, and even."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.learning.global_model import GlobalModel
from fl.learning.learner import Learner
from fl.schemes.plain import with_figures
from fl.schemes.session import Model, plan_for
from mphe.update.quantise import Figures, dequantise, payload_length, quantise
from mphe.update.rotation import Rotation, block_length, hadamard, padded_length
from tests.fl.federation import flags


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
    rotation, values = Rotation(size, seed), rng(seed).standard_normal(size).astype(np.float32)
    turned = rotation.apply(values, round)
    assert turned.shape == (padded_length(size),) and turned.dtype == np.float32
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(values), rel=1e-5)
    assert np.allclose(rotation.undo(turned, round), values, atol=1e-5)


def test_it_commutes_with_the_sum() -> None:
    rotation, (one, two) = Rotation(999, 1), rng().standard_normal((2, 999)).astype(np.float32)
    together = rotation.apply(one, 5) + rotation.apply(two, 5)
    assert np.allclose(rotation.undo(together, 5), one + two, atol=1e-5)


def test_signs_follow_the_seed_and_the_round() -> None:
    values = np.ones(64, np.float32)
    turned = Rotation(64, 1).apply(values, 1)
    assert np.array_equal(turned, Rotation(64, 1).apply(values, 1))
    assert not np.allclose(turned, Rotation(64, 1).apply(values, 2))
    assert not np.allclose(turned, Rotation(64, 2).apply(values, 1))


@pytest.mark.parametrize("size", [1, 2, 7, 50, 7_850, 49_915, 199_658])
def test_little_is_padded(size: int) -> None:
    assert padded_length(size) % block_length(size) == 0
    assert size <= padded_length(size) <= 1.016 * size


def test_a_layer_of_large_values_is_spread_over_everything() -> None:
    values = np.zeros(199_658, np.float32)
    values[100_000:102_000] = rng().standard_normal(2000)
    turned = Rotation(values.size, 0).apply(values, 1)
    spread = float(np.sqrt(np.mean(turned * turned)))
    assert np.abs(turned).max() < 6 * spread
    assert np.abs(values).max() > 25 * spread


def test_with_four_bits_it_saves_what_rounding_would_drown() -> None:
    # Many small values and a few large ones, as in gradients.
    values = (0.02 * rng().standard_normal(8192)).astype(np.float32)
    values[:16] = 1.0

    def lost(sent: np.ndarray) -> float:
        reach = float(np.abs(sent).max())
        rounded = dequantise(quantise(sent, reach, 4, Figures(0.0), rng()), 1, reach, 4).update
        return float(np.linalg.norm(rounded - sent) / np.linalg.norm(sent))

    assert lost(Rotation(values.size, 0).apply(values, 1)) < 0.4 < 0.8 < lost(values)


@pytest.mark.parametrize("more", [[], ["--compression_rate", "0.5"]])
def test_client_and_server_undo_each_other(tmp_path: Path, more: list[str]) -> None:
    words = ["--rotation", "True", "--model", "examples/logistic.py:model", *more]
    args = flags(tmp_path, *words, "--dataset", "mnist5k")
    learner = Learner(args, 1, "mnist5k")
    start = np.zeros(learner.size, np.float32)
    model = GlobalModel(args, start)
    update, figures = learner.update(1, Model(start, 3.0))
    values = learner.encode(1, model.sent(), update, figures)
    assert values.size == plan_for(args, learner.size).session.length
    mean = model.step(1, values, 1)
    learner._rotation = None
    plain = learner._compress(1, update)
    assert np.allclose(mean.update, plain, atol=1e-3)
    assert np.linalg.norm(mean.update) == pytest.approx(np.linalg.norm(plain), rel=1e-3)


def test_plain_updates_are_not_rotated(tmp_path: Path) -> None:
    args = flags(tmp_path, "--rotation", "True", "--aggregation", "plain")
    model = GlobalModel(args, np.zeros(3, np.float32))
    mean = model.step(1, with_figures(np.array([1.0, 2.0, 3.0]), Figures(0.0)), 1)
    assert mean.update.tolist() == [1.0, 2.0, 3.0]


def test_the_plan_counts_the_padding(tmp_path: Path) -> None:
    with_it = plan_for(flags(tmp_path, "--rotation", "True"), 199_658).session.length
    assert with_it == payload_length(padded_length(199_658), 16)
    assert plan_for(flags(tmp_path), 199_658).session.length == payload_length(199_658, 16)
