"""UpdateCodec: what is encoded and summed is decoded to the mean, by the same public numbers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mphe.errors import EncodingError, ParameterError
from mphe.update import Counts, PublicRange, UpdateCodec, clip
from mphe.update.codec import CODEC_VERSION
from mphe.update.quantise import dequantise, payload_length, quantise
from mphe.update.rotation import padded_length
from mphe.update.streams import Stream, generator


def updates_of(clients: int, size: int, seed: int, scale: float = 0.1) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((clients, size))
    return np.asarray(scale / size**0.5 * drawn, np.float32)


def encode(codec: UpdateCodec, updates: np.ndarray, public: PublicRange, **more: Any) -> np.ndarray:
    """Return the sum of all updates' integers, int64."""
    encoded = [
        codec.encode(update, public, seed=5, index=index, round=3, **more)
        for index, update in enumerate(updates, start=1)
    ]
    total: np.ndarray = np.stack(encoded).astype(np.int64).sum(axis=0)
    return total


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    size=st.integers(1, 700),
    clients=st.integers(1, 6),
    bits=st.integers(4, 24),
    rotation=st.booleans(),
    seed=st.integers(0, 999),
)
def test_the_sum_is_decoded_to_the_mean_within_a_step(
    size: int, clients: int, bits: int, rotation: bool, seed: int
) -> None:
    codec = UpdateCodec(size, bits, 1.0, rotation=rotation)
    updates, public = updates_of(clients, size, seed, 0.2), PublicRange(1.0)
    total = encode(codec, updates, public)
    assert total.shape == (codec.payload_length,)
    mean = codec.decode(total, clients, public, seed=5, round=3)
    step = 1.0 / ((1 << (bits - 1)) - 1)
    error = np.abs(mean.update - updates.mean(axis=0))
    # A rotation back spreads each step over a block, but keeps their norm.
    limit = step if not rotation else step * padded_length(size) ** 0.5
    assert error.max() <= limit + 1e-6
    assert mean.clipped == 0 and mean.update.dtype == np.float32


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    size=st.integers(2, 500),
    rate=st.floats(0.01, 1),
    rotation=st.booleans(),
    round=st.integers(1, 40),
)
def test_compressed_and_rotated_updates_come_back_at_their_coordinates(
    size: int, rate: float, rotation: bool, round: int
) -> None:
    codec = UpdateCodec(size, 24, 1e3, compression_rate=rate, rotation=rotation)
    update, public = updates_of(1, size, round)[0], PublicRange(1.0)
    integers = codec.encode(update, public, seed=9, index=1, round=round)
    assert integers.size == codec.payload_length
    back = codec.decode(integers, 1, public, seed=9, round=round).update
    left = codec.unsent(update, seed=9, round=round)
    rest = np.zeros(size, np.float32) if left is None else left
    assert np.allclose(back + rest, update, atol=1e-4)
    assert np.count_nonzero(back * rest) == 0 or rotation
    assert np.count_nonzero(rest) <= size - codec.sent_length


def test_without_extras_it_is_quantise_and_dequantise() -> None:
    """The default way, from its parts: nothing else happens to the numbers."""
    codec = UpdateCodec(300, 16, 3.0)
    update, counts = updates_of(1, 300, 1)[0], Counts(0.7, 0.9, 40, 1.0)
    public = codec.first_public()
    integers = codec.encode(update, public, seed=7, index=2, round=4, counts=counts)
    rng = generator(Stream.ROUNDING, 7, 2, 4)
    assert np.array_equal(integers, quantise(update, public.clip_range, 16, counts, rng))
    mean, plain = codec.decode(integers, 1, public), dequantise(integers, 1, public.clip_range, 16)
    assert np.array_equal(mean.update, plain.update)
    assert (mean.loss, mean.accuracy, mean.samples) == pytest.approx((0.7, 0.9, 40))


def test_clients_and_rounds_do_not_round_alike() -> None:
    codec, update, public = UpdateCodec(300, 8, 3.0), updates_of(1, 300, 1)[0], PublicRange(1.0)
    seen = [
        codec.encode(update, public, seed=seed, index=index, round=round).tolist()
        for seed, index, round in ((0, 1, 1), (0, 2, 1), (0, 1, 2), (1, 1, 1), (0, 1, 1))
    ]
    assert seen[0] == seen[-1] and len({str(values) for values in seen}) == 4


def test_long_updates_are_scaled_to_the_norm_and_weighted_afterwards() -> None:
    codec, public = UpdateCodec(64, 24, 1.0, weighted=True), PublicRange(8.0)
    long = np.full(64, 10.0, np.float32)
    total = encode(codec, long[None], public, counts=Counts(weight=4.0))
    mean = codec.decode(total, 1, public)
    # Weighed by 4 and divided by the weights' sum: the norm is the limit, not four times that.
    assert np.linalg.norm(mean.update) == pytest.approx(1.0, rel=1e-4)
    assert np.abs(total[:64] - (1 << 23) + 1).max() * 8.0 / ((1 << 23) - 1) == pytest.approx(0.5)


def test_weights_make_a_mean_over_samples() -> None:
    codec, public = UpdateCodec(8, 20, 3.0, weighted=True), PublicRange(9.0)
    ones = np.ones(8, np.float32)
    total = encode(codec, ones[None], public, counts=Counts(weight=3.0))
    total += encode(codec, -ones[None], public, counts=Counts(weight=1.0))
    assert np.allclose(codec.decode(total, 2, public).update, 0.5, atol=1e-3)


def test_the_range_follows_what_was_sent_not_what_was_rotated_back() -> None:
    """One large value is even after a rotation: a range for it would waste most levels."""
    update = np.zeros((1, 4096), np.float32)
    update[0, 7] = 1.0
    ranges = {}
    for rotation in (False, True):
        codec = UpdateCodec(4096, 16, 1.0, rotation=rotation)
        public = codec.first_public()
        for _ in range(12):
            total = encode(codec, update, public)
            public = codec.next_public(public, codec.decode(total, 1, public, seed=5, round=3))
        ranges[rotation] = public.clip_range
    assert ranges[False] == 1.0 and ranges[True] < 0.1


def test_values_beyond_the_range_widen_it_up_to_the_limit() -> None:
    codec, public = UpdateCodec(100, 16, 2.0), PublicRange(0.01)
    updates = updates_of(3, 100, 2, 2.0)
    seen = []
    for _ in range(40):
        mean = codec.decode(encode(codec, updates, public), 3, public)
        seen.append(mean.clipped)
        assert mean.spread is not None and mean.spread.clipped == mean.clipped / 300
        public = codec.next_public(public, mean)
    assert seen[0] > 0 and seen[-1] == 0 and public.clip_range <= 2.0


@pytest.mark.parametrize("norm", [1e-20, 0.5, 1.0, 1e10])
def test_clipping_what_was_clipped_changes_nothing(norm: float) -> None:
    vector = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    once = clip(vector, norm)
    assert np.linalg.norm(once.astype(np.float64)) <= norm * (1 + 1e-6)
    assert clip(once, norm) is once
    assert norm > 1e3 or not np.array_equal(once, vector)


def test_clip() -> None:
    vector = np.array([3, 4], np.float32)
    assert clip(vector, 5.0).tolist() == [3, 4]
    assert clip(vector, 1.0) == pytest.approx([0.6, 0.8])
    assert clip(vector, 1.0).dtype == np.float32 and vector.tolist() == [3, 4]
    assert clip(np.full(4, 1e30, np.float32), 3.0) == pytest.approx([1.5] * 4)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="NaN or infinity"):
            clip(np.array([bad], np.float32), 3.0)


@pytest.mark.parametrize(
    ("update", "public", "hint"),
    [
        (np.zeros(9, np.float32), PublicRange(1.0), "where floats"),
        (np.zeros((10, 1), np.float32), PublicRange(1.0), "where floats"),
        (np.zeros(10, np.int64), PublicRange(1.0), "where floats"),
        (np.full(10, np.nan, np.float32), PublicRange(1.0), "NaN or infinity"),
        (np.zeros(10, np.float32), PublicRange(1.0, CODEC_VERSION + 1), "same release"),
        (np.zeros(10, np.float32), PublicRange(float("inf")), "no clip range"),
    ],
)
def test_what_cannot_be_encoded_is_refused(
    update: np.ndarray, public: PublicRange, hint: str
) -> None:
    with pytest.raises(EncodingError, match=hint):
        UpdateCodec(10, 16, 1.0).encode(update, public, seed=0, index=1, round=1)


def test_what_cannot_be_decoded_is_refused() -> None:
    codec, public = UpdateCodec(10, 16, 1.0, rotation=True), PublicRange(1.0)
    total = np.zeros(codec.payload_length, np.int64)
    with pytest.raises(ParameterError, match="seed and round"):
        codec.decode(total, 1, public)
    with pytest.raises(EncodingError, match="belongs"):
        codec.decode(total[1:], 1, public, seed=0, round=1)
    with pytest.raises(EncodingError, match="belongs"):
        codec.decode(total, 0, public, seed=0, round=1)


@pytest.mark.parametrize(
    "more",
    [
        {"length": 0},
        {"value_bits": 3},
        {"value_bits": 25},
        {"clip_norm": 0.0},
        {"clip_norm": float("nan")},
        {"compression_rate": 0.0},
        {"compression_rate": 1.5},
    ],
)
def test_parameters_out_of_range_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="use"):
        UpdateCodec(**({"length": 10, "value_bits": 16, "clip_norm": 1.0} | more))


def test_the_public_range_survives_its_bytes_and_nothing_else_does() -> None:
    public = PublicRange(0.25)
    assert len(public.to_bytes()) == PublicRange.SIZE == 12
    assert PublicRange.from_bytes(public.to_bytes()) == public
    for wrong in (b"", public.to_bytes() + b"x", PublicRange(0.25, 9).to_bytes()):
        with pytest.raises(EncodingError):
            PublicRange.from_bytes(wrong)


def test_the_length_of_the_payload_counts_padding_and_counts() -> None:
    assert UpdateCodec(199_658, 16, 3.0).payload_length == payload_length(199_658, 16)
    rotated = UpdateCodec(199_658, 16, 3.0, rotation=True)
    assert rotated.payload_length == payload_length(padded_length(199_658), 16)
    half = UpdateCodec(1000, 16, 3.0, compression_rate=0.5)
    assert half.payload_length == payload_length(500, 16)
