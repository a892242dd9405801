"""Noise, grid and flags of differential privacy."""

from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl.config.flags import UsageError
from fl.privacy.privacy import (
    MIN_DEVIATION,
    SILENT,
    Privacy,
    describe,
    failure_probability,
    make_privacy,
)
from mphe.update.quantise import count_digits, dequantise, half_levels, payload_length, quantise
from tests.fl.federation import flags
from tests.fl.private import private_flags
from tests.support import seeded

LABELS = np.arange(400) % 10


def privacy(**fields: float) -> Privacy:
    """Return parameters as a run may have them."""
    chosen = {
        "epsilon": 4.0,
        "delta": 1e-5,
        "noise_multiplier": 1.5,
        "sampling_rate": 1.0,
        "sensitivity": 1.0,
        "honest": 2,
        "size": 200,
        "bits": 16,
        "contributions": 400,
    }
    return Privacy(**(chosen | fields))  # type: ignore[arg-type]


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    reach=st.floats(1e-3, 1e3),
    sensitivity=st.floats(1e-3, 10),
    size=st.integers(1, 60),
    bits=st.integers(12, 24),
    honest=st.integers(1, 40),
    noise=st.floats(0.3, 5),
    spread=st.sampled_from(["dense", "one", "beyond the range"]),
)
def test_one_unit_moves_the_integers_by_no_more_than_the_noise_is_sized_for(
    seed: int,
    reach: float,
    sensitivity: float,
    size: int,
    bits: int,
    honest: int,
    noise: float,
    spread: str,
) -> None:
    plan = privacy(
        sensitivity=sensitivity, size=size, bits=bits, honest=honest, noise_multiplier=noise
    )
    grid = plan.grid(reach)
    rng = np.random.default_rng(seed)
    others = rng.normal(0, reach * (3 if spread == "beyond the range" else 0.3), size)
    unit = rng.normal(0, 1, size) if spread != "one" else np.eye(size)[seed % size]
    unit *= sensitivity / np.linalg.norm(unit)
    near, far = (
        quantise(np.clip(v, -reach, reach), grid.reach, bits, SILENT, np.random.default_rng(seed))[
            :size
        ].astype(np.int64)
        for v in (others, others + unit)
    )
    moved = float(np.linalg.norm(near - far))
    # The noise in the sum of the fewest contributors, of whom h are honest, is z times as much.
    assert moved * noise <= grid.deviation * sqrt(honest)
    # And all of the range and 12 deviations fit the grid.
    margin = 12 * grid.deviation
    assert margin <= min(near.min(), far.min()) and max(near.max(), far.max()) <= (
        2 * half_levels(bits) - margin
    )


def test_rounding_alone_can_move_a_unit_further_than_its_norm() -> None:
    """The term sqrt(d) is needed: without it this pair is further apart than C/step."""
    plan = privacy(size=4000, sensitivity=0.01, bits=12, noise_multiplier=0.05)
    grid = plan.grid(1.0)
    rng = np.random.default_rng(1)
    unit = rng.choice([-1.0, 1.0], plan.size) * plan.sensitivity / sqrt(plan.size)
    near, far = (
        quantise(v, grid.reach, 12, SILENT, np.random.default_rng(2)).astype(np.int64)
        for v in (0 * unit, unit)
    )
    moved = float(np.linalg.norm(near - far))
    assert plan.sensitivity / grid.step * 1.5 < moved
    assert moved <= plan.sensitivity / grid.step + sqrt(plan.size)


@pytest.mark.parametrize("reach", [1e-300, 1e-9, 0.1, 3.0, 1e6, 1e300])
@pytest.mark.parametrize("sensitivity", [1 / 256, 1.0])
def test_no_range_that_a_server_sends_makes_the_noise_too_small(
    reach: float, sensitivity: float
) -> None:
    plan = privacy(sensitivity=sensitivity)
    grid = plan.grid(reach)
    needed = plan.noise_multiplier * (sensitivity / grid.step + sqrt(plan.size)) / sqrt(2)
    assert grid.deviation >= max(needed, MIN_DEVIATION)
    assert grid.reach == pytest.approx(grid.step * 32767)
    assert grid.reach >= reach + 12 * grid.deviation * grid.step
    noisy = plan.encode(np.zeros(200), reach, np.random.default_rng(0), seeded("range"))
    assert np.var(noisy[:200]) == pytest.approx(grid.deviation**2, rel=0.35)


def test_narrow_noise_is_widened_for_the_smallest_models() -> None:
    plan = privacy(size=1, noise_multiplier=0.005, honest=50)
    assert plan.grid(10.0).deviation == MIN_DEVIATION


def test_noisy_integers_have_the_noise_of_one_contributor_and_silent_counts() -> None:
    plan = privacy(size=20_000, bits=20)
    grid = plan.grid(1.0)
    values = np.linspace(-0.5, 0.5, plan.size)
    noisy = plan.encode(values, 1.0, np.random.default_rng(0), seeded("share"))
    assert noisy.dtype == np.int32 and noisy.size == payload_length(plan.size, 20)
    noise = noisy[: plan.size] - (values + grid.reach) / grid.step
    # Rounding adds a variance of 1/4 at most; 20,000 samples are right to 1 %.
    assert np.var(noise) == pytest.approx(grid.deviation**2, rel=0.05)
    mean = dequantise(noisy.astype(np.int64), 1, grid.reach, 20)
    assert np.abs(mean.update - values).max() < 6 * grid.deviation * grid.step
    assert (mean.loss, mean.accuracy, mean.samples, mean.saturated) == (0, 0, 0, 0)
    # Digits of the five counts: nothing but the weight, which is 1.
    counts = noisy[plan.size :].reshape(5, count_digits(20))
    assert counts.tolist() == [[0, 0], [0, 0], [0, 0], [0, 0], [1024, 0]]


def test_noise_comes_from_the_secret_source_alone() -> None:
    plan, values = privacy(), np.zeros(200)
    first, again, other = (
        plan.encode(values, 1.0, np.random.default_rng(0), seeded(label)) for label in "aab"
    )
    assert first.tolist() == again.tolist() != other.tolist()


def test_values_beyond_the_range_are_cut_before_the_noise() -> None:
    plan = privacy(size=2000)
    near, far = (
        plan.encode(np.full(2000, v), 1.0, np.random.default_rng(0), seeded("cut"))
        for v in (1.0, 50.0)
    )
    assert near.tolist() == far.tolist()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--value_bits 6", "raise --value_bits"),
        ("--value_bits 8 --dp_unit client", "does not fit 8 bits"),
        ("--dp_noise_multiplier 0.1 --dp_unit client", "costs more than --dp_epsilon 4"),
        ("--dp_epsilon 30 --dp_delta 1e-15", "cannot both be promised"),
    ],
)
def test_what_cannot_be_protected_gets_one_line(tmp_path: Path, words: str, hint: str) -> None:
    args = private_flags(tmp_path, *words.split())
    with pytest.raises(UsageError) as caught:
        make_privacy(args, 5000, LABELS)
    assert hint in str(caught.value) and "\n" not in str(caught.value)


def test_parameters_follow_the_flags(tmp_path: Path) -> None:
    args = private_flags(tmp_path, "--batch_size_per_worker", "25", "--clip_norm", "0.5")
    plan = make_privacy(args, 1000, LABELS)
    assert plan is not None
    assert (plan.sampling_rate, plan.sensitivity, plan.honest) == (0.25, 0.5 / 25, 2)
    assert plan.budget.rounds >= args.num_iterations
    assert plan.budget.spent(args.num_iterations) <= 4
    more = private_flags(tmp_path, "--dp_unit", "client", "--dp_colluding", "2")
    plan = make_privacy(more, 1000, None)
    assert plan is not None
    assert (plan.sampling_rate, plan.sensitivity, plan.honest) == (1, 3.0, 1)
    assert make_privacy(flags(tmp_path), 1000, LABELS) is None


def test_the_rate_is_that_of_the_client_with_the_fewest_samples(tmp_path: Path) -> None:
    args = private_flags(tmp_path, "--partition", "dirichlet:0.3", "--batch_size_per_worker", "10")
    plan = make_privacy(args, 10, LABELS)
    assert plan is not None and plan.sampling_rate > 10 / 100
    whole = replace(args, batch_size_per_worker=500)
    plan = make_privacy(whole, 10, LABELS)
    assert plan is not None and plan.sampling_rate == 1
    with pytest.raises(UsageError, match="own data"):
        make_privacy(args, 10, None)


def test_the_user_sees_what_is_promised_and_when_bits_are_too_few(tmp_path: Path) -> None:
    args = private_flags(tmp_path, "--batch_size_per_worker", "25", "--value_bits", "12")
    plan = make_privacy(args, 3000, LABELS)
    assert plan is not None
    first, second = describe(args, plan)
    assert "(4, 1e-05)-differential privacy of each sample" in first
    assert "1 of 3 contributors collude" in first and "batches of rate 0.25" in first
    assert "--value_bits 20" in second
    finer = replace(args, value_bits=20)
    plan = make_privacy(finer, 3000, LABELS)
    assert plan is not None and len(describe(finer, plan)) == 1


def test_what_may_go_wrong_is_far_below_delta() -> None:
    assert failure_probability(4 * 100, 199_658) < 1e-22
