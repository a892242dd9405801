"""No sum of honest updates is called implausible, and little beyond what they can reach passes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mphe.update import Counts, PrivateUpdateCodec, PublicRange, UpdateCodec
from mphe.update.quantise import MAX_WEIGHT, WEIGHT_UNIT, count_digits, half_levels

MANY = 10_000
"""Contributors whose mean has steps so fine that a limit is met closely."""
SHAPES = ("normal", "equal", "one value", "alike", "zero")


def drawn(shape: str, clients: int, size: int, length: float, seed: int) -> np.ndarray:
    """Return updates of about a length, float32 (clients, size)."""
    rng = np.random.default_rng(seed)
    updates = rng.standard_normal((clients, size))
    if shape == "equal":
        updates = np.ones((clients, size)) * rng.choice([-1, 1], (1, size))
    elif shape == "one value":
        updates = np.zeros((clients, size))
        updates[:, rng.integers(size)] = 1
    elif shape == "alike":
        updates = np.repeat(updates[:1], clients, axis=0)
    elif shape == "zero":
        return np.zeros((clients, size), np.float32)
    norms = np.linalg.norm(updates, axis=1, keepdims=True)
    return np.asarray(length * updates / norms, np.float32)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    shape=st.sampled_from(SHAPES),
    size=st.integers(1, 900),
    clients=st.integers(1, 8),
    bits=st.integers(4, 24),
    clip_norm=st.floats(1e-6, 1e6),
    length=st.floats(0.1, 10),
    part=st.floats(1e-3, 2),
    rate=st.floats(0.01, 1),
    rotation=st.booleans(),
    weights=st.one_of(st.none(), st.lists(st.integers(1, 8192), min_size=8, max_size=8)),
    half=st.booleans(),
    seed=st.integers(0, 999),
)
def test_no_honest_round_is_implausible(
    shape: str,
    size: int,
    clients: int,
    bits: int,
    clip_norm: float,
    length: float,
    part: float,
    rate: float,
    rotation: bool,
    weights: list[int] | None,
    half: bool,
    seed: int,
) -> None:
    weighted = weights is not None
    codec = UpdateCodec(
        size, bits, clip_norm, compression_rate=rate, rotation=rotation, weighted=weighted
    )
    public = PublicRange(part * clip_norm * (MAX_WEIGHT if weighted else 1))
    updates = drawn(shape, clients, size, length * clip_norm, seed)
    if half and 1e-2 < clip_norm < 1e3:
        updates = updates.astype(np.float16)
    total = np.zeros(codec.payload_length, np.int64)
    for index, update in enumerate(updates):
        counts = Counts(1.0, 1.0, 9, weights[index] * WEIGHT_UNIT if weights else 1.0)
        total += codec.encode(update, public, seed=seed, index=index, round=2, counts=counts)
    assert codec.implausible(total, clients, public) == ""


def of_norm(codec: UpdateCodec, public: PublicRange, clients: int, norm: float) -> np.ndarray:
    """Return a total whose decoded mean has a norm, spread evenly over its values."""
    size = codec.payload_length - 5 * count_digits(codec.value_bits)
    half = half_levels(codec.value_bits)
    total = np.zeros(codec.payload_length, np.int64)
    value = norm / math.sqrt(size) * clients * half / public.clip_range
    total[:size] = clients * half + round(value)
    return total


@pytest.mark.parametrize("rotation", [False, True])
@pytest.mark.parametrize(("bits", "slack"), [(16, 1e-2), (8, 0.5)])
def test_the_limit_is_the_clip_norm_and_a_step_for_each_value(
    bits: int, slack: float, rotation: bool
) -> None:
    codec, public = UpdateCodec(4096, bits, 3.0, rotation=rotation), PublicRange(2.0)
    rounding = 64 * 2.0 / half_levels(bits)
    assert rounding < slack * 3.0
    assert codec.implausible(of_norm(codec, public, MANY, 2.999 + rounding), MANY, public) == ""
    wrong = codec.implausible(of_norm(codec, public, MANY, 3.001 + rounding), MANY, public)
    assert wrong.startswith(f"the mean update has norm {3.001 + rounding:.4g}")


@pytest.mark.parametrize(
    ("units", "right"), [(0, False), (2, False), (3, True), (3 * 8192, True), (3 * 8192 + 1, False)]
)
def test_weights_lie_between_the_smallest_and_the_largest_of_all_clients(
    units: int, right: bool
) -> None:
    codec, public = UpdateCodec(10, 16, 1.0, weighted=True), PublicRange(8.0)
    total = of_norm(codec, public, 3, 0)
    total[-count_digits(16)] = units
    assert (codec.implausible(total, 3, public) == "") == right
    # Where weights are no matter, whatever is reported is no matter either.
    assert UpdateCodec(10, 16, 1.0).implausible(total, 3, public) == ""


def test_weights_divide_the_norm() -> None:
    codec, public = UpdateCodec(10, 16, 1.0, weighted=True), PublicRange(8.0)
    total = of_norm(codec, public, 3, 1.5)
    for weight, right in ((3 * 1024, False), (5 * 1024, True)):
        total[-count_digits(16)] = weight
        assert (codec.implausible(total, 3, public) == "") == right


def test_noise_has_no_bound() -> None:
    codec = PrivateUpdateCodec(10, 16, 1.0, noise_multiplier=1.0, honest=2)
    total = np.full(codec.payload_length, 3 * 65534, np.int64)
    assert codec.implausible(total, 3, codec.first_public()) == ""


def test_private_means_are_divided_by_the_contributors() -> None:
    """Whatever a client puts where others report nothing."""
    codec = PrivateUpdateCodec(10, 16, 1.0, noise_multiplier=1.0, honest=2)
    public, totals = codec.first_public(), []
    for weight in (1, 3 * 1024):
        total = np.full(codec.payload_length, 3 * half_levels(16) + 30, np.int64)
        total[-count_digits(16)] = weight
        totals.append(codec.decode(total, 3, public).update)
    assert np.array_equal(totals[0], totals[1]) and totals[0].any()


def test_short_floats_are_not_rounded_beyond_the_norm() -> None:
    """In float16 equal values of norm 1 are off by up to 2^-12, which is many steps of 24 bits."""
    for size in range(2, 40):
        codec, public = UpdateCodec(size, 24, 1.0), PublicRange(1.0)
        update = np.full(size, 5, np.float16)
        total = codec.encode(update, public, seed=0, index=1, round=1).astype(np.int64)
        assert codec.implausible(total, 1, public) == ""
