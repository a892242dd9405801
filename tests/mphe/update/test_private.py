"""The noise of one contributor: its size, its grid, and that nothing else is told."""

from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mphe.errors import EncodingError, LocalProtocolError, ParameterError
from mphe.update import Counts, PrivateUpdateCodec, PublicRange
from mphe.update.private import MIN_DEVIATION, NoiseGrid, failure_probability
from mphe.update.quantise import (
    NO_COUNTS,
    count_digits,
    dequantise,
    half_levels,
    payload_length,
    quantise,
)
from tests.support import hedged


def private(size: int = 200, bits: int = 16, label: str = "private", **more: Any) -> Any:
    """Return a codec as a run may have it, with known noise."""
    chosen = {"noise_multiplier": 1.5, "honest": 2, "sensitivity": 1.0} | more
    return PrivateUpdateCodec(size, bits, 1e3, **chosen, hedge=hedged(label))


def encoded(codec: PrivateUpdateCodec, values: np.ndarray, clip_range: float) -> np.ndarray:
    return codec.encode(values, PublicRange(clip_range), seed=0, index=1, round=1)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    clip_range=st.floats(1e-3, 1e3),
    sensitivity=st.floats(1e-3, 10),
    size=st.integers(1, 60),
    bits=st.integers(12, 24),
    honest=st.integers(1, 40),
    noise=st.floats(0.3, 5),
    spread=st.sampled_from(["dense", "one", "beyond the range"]),
)
def test_one_unit_moves_the_integers_by_no_more_than_the_noise_is_sized_for(
    seed: int,
    clip_range: float,
    sensitivity: float,
    size: int,
    bits: int,
    honest: int,
    noise: float,
    spread: str,
) -> None:
    codec = private(size, bits, sensitivity=sensitivity, honest=honest, noise_multiplier=noise)
    grid: NoiseGrid = codec.grid(clip_range)
    rng = np.random.default_rng(seed)
    others = rng.normal(0, clip_range * (3 if spread == "beyond the range" else 0.3), size)
    unit = rng.normal(0, 1, size) if spread != "one" else np.eye(size)[seed % size]
    unit *= sensitivity / np.linalg.norm(unit)
    near, far = (
        quantise(
            np.clip(v, -clip_range, clip_range),
            grid.largest,
            bits,
            NO_COUNTS,
            np.random.default_rng(seed),
        )[:size].astype(np.int64)
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
    size, sensitivity = 4000, 0.01
    grid = private(size, 12, sensitivity=sensitivity, noise_multiplier=0.05).grid(1.0)
    rng = np.random.default_rng(1)
    unit = rng.choice([-1.0, 1.0], size) * sensitivity / sqrt(size)
    near, far = (
        quantise(v, grid.largest, 12, NO_COUNTS, np.random.default_rng(2)).astype(np.int64)
        for v in (0 * unit, unit)
    )
    moved = float(np.linalg.norm(near - far))
    assert sensitivity / grid.step * 1.5 < moved
    assert moved <= sensitivity / grid.step + sqrt(size)


@pytest.mark.parametrize("clip_range", [1e-300, 1e-9, 0.1, 3.0, 1e6, 1e300])
@pytest.mark.parametrize("sensitivity", [1 / 256, 1.0])
def test_no_range_that_a_server_sends_makes_the_noise_too_small(
    clip_range: float, sensitivity: float
) -> None:
    codec = private(sensitivity=sensitivity)
    grid = codec.grid(clip_range)
    needed = 1.5 * (sensitivity / grid.step + sqrt(200)) / sqrt(2)
    assert grid.deviation >= max(needed, MIN_DEVIATION)
    assert grid.largest == pytest.approx(grid.step * 32767)
    assert grid.largest >= clip_range + 12 * grid.deviation * grid.step
    noisy = encoded(codec, np.zeros(200), clip_range)
    assert np.var(noisy[:200]) == pytest.approx(grid.deviation**2, rel=0.35)


def test_narrow_noise_is_widened_for_the_smallest_models() -> None:
    codec = private(1, noise_multiplier=0.005, honest=50)
    assert codec.grid(10.0).deviation == MIN_DEVIATION


def test_noisy_integers_have_the_noise_of_one_contributor_and_tell_no_counts() -> None:
    size = 20_000
    codec = private(size, 20)
    grid, values = codec.grid(1.0), np.linspace(-0.5, 0.5, size)
    # Whatever a learner says of itself stays with it.
    said = Counts(0.7, 0.6, 300, 4.0)
    noisy = codec.encode(values, PublicRange(1.0), seed=0, index=1, round=1, counts=said)
    assert noisy.dtype == np.int32 and noisy.size == codec.payload_length == payload_length(
        size, 20
    )
    noise = noisy[:size] - (values + grid.largest) / grid.step
    # Rounding adds a variance of 1/4 at most; 20,000 samples are right to 1 %.
    assert np.var(noise) == pytest.approx(grid.deviation**2, rel=0.05)
    mean = dequantise(noisy.astype(np.int64), 1, grid.largest, 20)
    assert np.abs(mean.update - values).max() < 6 * grid.deviation * grid.step
    assert (mean.loss, mean.accuracy, mean.samples, mean.clipped) == (0, 0, 0, 0)
    # Digits of the five counts: nothing but the weight, which is 1.
    counts = noisy[size:].reshape(5, count_digits(20))
    assert counts.tolist() == [[0, 0], [0, 0], [0, 0], [0, 0], [1024, 0]]


def test_noise_comes_from_the_secret_source_alone() -> None:
    first, again, other = (encoded(private(label=x), np.zeros(200), 1.0) for x in "aab")
    assert first.tolist() == again.tolist() != other.tolist()


def test_values_beyond_the_range_are_cut_before_the_noise() -> None:
    near, far = (encoded(private(2000), np.full(2000, v), 1.0) for v in (1.0, 50.0))
    assert near.tolist() == far.tolist()


def test_a_whole_update_is_clipped_where_it_is_the_unit_and_only_there() -> None:
    """A sample's part is clipped by its caller: their sum may be longer."""
    long = np.full(200, 1.0)
    for sensitivity, norm in ((None, 1.0), (1e-3, sqrt(200))):
        codec = PrivateUpdateCodec(
            200,
            24,
            1.0,
            noise_multiplier=0.001,
            honest=1,
            sensitivity=sensitivity,
            hedge=hedged("norm"),
        )
        public = PublicRange(2.0)
        mean = codec.decode(encoded(codec, long, 2.0), 1, public).update
        assert np.linalg.norm(mean) == pytest.approx(norm, rel=0.01)
        with pytest.raises(EncodingError, match="where floats"):
            encoded(codec, long[1:], 2.0)


def test_its_range_starts_where_coordinates_are_and_the_sum_is_decoded_to_the_mean() -> None:
    codec = PrivateUpdateCodec(4096, 20, 1.0, noise_multiplier=0.5, honest=2, hedge=hedged("sum"))
    public = codec.first_public()
    assert public.clip_range == 0.5
    rng = np.random.default_rng(3)
    updates = rng.normal(0, 0.01, (3, 4096))
    encodings = [
        codec.encode(update, public, seed=0, index=index, round=1)
        for index, update in enumerate(updates)
    ]
    total = np.stack(encodings).astype(np.int64).sum(axis=0)
    mean = codec.decode(total, 3, public)
    grid = codec.grid(public.clip_range)
    assert np.abs(mean.update - updates.mean(axis=0)).max() < 4 * grid.deviation * grid.step
    assert (mean.clipped, mean.loss, mean.accuracy, mean.samples) == (0, None, None, None)
    assert 0 < codec.next_public(public, mean).clip_range <= 1.0


def test_who_only_decodes_needs_no_source_and_cannot_encode_without_noise() -> None:
    codec = PrivateUpdateCodec(200, 16, 1.0, noise_multiplier=1.5, honest=2)
    with pytest.raises(LocalProtocolError, match="a Hedge to draw noise from"):
        encoded(codec, np.zeros(200), 1.0)


def test_noise_that_does_not_fit_the_bits_is_refused() -> None:
    with pytest.raises(ParameterError, match="does not fit 8 bits"):
        private(5000, 8)


def test_what_may_go_wrong_is_far_below_delta() -> None:
    assert failure_probability(4 * 100, 199_658) < 1e-22
