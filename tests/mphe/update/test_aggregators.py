"""Aggregators of groups' sums against the standard library, and against hostile groups."""

from __future__ import annotations

import math
from statistics import fmean, median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mphe import ParameterError
from mphe.update import Counts, GroupAggregator, Mean, UpdateCodec
from mphe.update.aggregators import NAMES, within_norm

SIZE = 40
ROBUST = ("median", "trimmed_mean:0.25", "norm_filter")
Sums = list[tuple[np.ndarray, int]]


class Codec:
    """Encodes updates and decodes sums of one round, the same for all."""

    def __init__(self, clip_norm: float = 3.0, **options: bool | float) -> None:
        self.codec = UpdateCodec(SIZE, 16, clip_norm, **options)  # type: ignore[arg-type]
        self.public = self.codec.first_public()

    def encode(self, update: np.ndarray, index: int, counts: Counts | None = None) -> np.ndarray:
        return self.codec.encode(
            update.astype(np.float32),
            self.public,
            seed=5,
            index=index,
            round=2,
            counts=counts or Counts(1.0, 0.5, 10),
        )

    def decode(self, total: np.ndarray, contributors: int) -> Mean:
        return self.codec.decode(total, contributors, self.public, seed=5, round=2)

    def sums(self, updates: list[np.ndarray], groups: int) -> Sums:
        """Return sums of consecutive runs of updates."""
        sums = []
        for part in np.array_split(np.arange(len(updates)), groups):
            rows = np.stack([self.encode(updates[place], int(place) + 1) for place in part])
            sums.append((rows.sum(axis=0, dtype=np.int64), len(part)))
        return sums


def updates(count: int, seed: int = 0, spread: float = 0.1) -> list[np.ndarray]:
    """Return updates near a common one of norm 1."""
    random = np.random.default_rng(seed)
    common = random.normal(size=SIZE)
    common /= np.linalg.norm(common)
    return [common + random.normal(size=SIZE) * spread / math.sqrt(SIZE) for _ in range(count)]


# -- the formulas ------------------------------------------------------------------------------

numbers = st.floats(-1e3, 1e3, width=32)
tables = st.integers(1, 4).flatmap(
    lambda columns: st.lists(
        st.lists(numbers, min_size=columns, max_size=columns), min_size=1, max_size=9
    )
)


def combined(name: str, table: list[list[float]]) -> list[float]:
    """Return what an aggregator makes of groups whose means are these rows."""
    sums = [(np.array([place]), 1) for place in range(len(table))]

    def decode(total: np.ndarray, contributors: int) -> Mean:
        assert contributors == 1
        return Mean(np.array(table[total[0]], np.float32), 0, None)

    found: list[float] = GroupAggregator.parse(name).combine(sums, decode).update.tolist()
    return found


@given(tables)
def test_the_median_is_that_of_the_standard_library(table: list[list[float]]) -> None:
    expected = [median(column) for column in zip(*table, strict=True)]
    assert combined("median", table) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(tables, st.integers(1, 49))
def test_a_trimmed_mean_leaves_out_as_many_at_each_end(
    table: list[list[float]], percent: int
) -> None:
    ends = min(-(-percent * len(table) // 100), (len(table) - 1) // 2)
    expected = [
        fmean(sorted(column)[ends : len(table) - ends]) for column in zip(*table, strict=True)
    ]
    name = f"trimmed_mean:{percent / 100}"
    assert combined(name, table) == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_seven_of_a_hundred_are_seven_at_each_end() -> None:
    squares = [float(place**2) for place in range(100)]  # 0.07 · 100 as floats is above 7.
    expected = fmean(squares[7:93])
    assert combined("trimmed_mean:0.07", [[x] for x in squares]) == pytest.approx([expected])


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=9))
def test_norm_filter_keeps_what_is_at_most_twice_as_long_as_the_median(norms: list[int]) -> None:
    rows = [np.array([0.6 * norm, -0.8 * norm], np.float32) for norm in norms]
    kept = within_norm(rows)
    limit = 2 * median(norms)
    assert {place for place, norm in enumerate(norms) if norm < 0.999 * limit} <= set(kept)
    assert not {place for place, norm in enumerate(norms) if norm > 1.001 * limit} & set(kept)
    assert len(kept) >= len(norms) / 2


def test_mean_is_that_of_one_sum_of_all() -> None:
    codec = Codec()
    sums = codec.sums(updates(12), 3)
    whole = codec.decode(np.sum([total for total, _ in sums], axis=0), 12)
    found = GroupAggregator().combine(sums, codec.decode)
    assert np.array_equal(found.update, whole.update)
    assert found == Mean(found.update, whole.clipped, whole.loss, 0.5, 120, whole.spread)


def test_mean_and_norm_filter_are_by_weight_where_updates_have_weights() -> None:
    codec = Codec(weighted=True)
    parts = [(1.0, 1), (1.2, 2), (-40.0, 4)]
    rows = [np.full(SIZE, value / math.sqrt(SIZE)) for value, _ in parts]
    weighted = [
        (codec.encode(row, i, Counts(weight=weight)).astype(np.int64), 1)
        for i, (row, (_, weight)) in enumerate(zip(rows, parts, strict=True))
    ]
    level = 1 / math.sqrt(SIZE)
    # The last is clipped to norm 3, still more than twice the median length.
    mean = GroupAggregator().combine(weighted, codec.decode).update
    assert mean == pytest.approx(np.full(SIZE, (1 + 2 * 1.2 - 4 * 3) / 7 * level), rel=1e-2)
    kept = GroupAggregator("norm_filter").combine(weighted, codec.decode).update
    assert kept == pytest.approx(np.full(SIZE, (1 + 2 * 1.2) / 3 * level), rel=1e-2)


# -- what they are for -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROBUST)
def test_hostile_groups_do_not_move_what_the_others_say(name: str) -> None:
    codec = Codec()
    honest = updates(32)
    expected = GroupAggregator().combine(codec.sums(honest, 8), codec.decode)
    sums = codec.sums(honest, 8)
    for group in (1, 4):  # ⌈0.25 · 8⌉ = 2 at each end are cut; fewer than half.
        total, size = sums[group]
        total[:SIZE] += 20 * (size * 32767 - total[:SIZE])
    attacked = GroupAggregator.parse(name).combine(sums, codec.decode)
    mean = GroupAggregator().combine(sums, codec.decode)
    honest_norm = np.linalg.norm(expected.update)
    assert np.linalg.norm(attacked.update - expected.update) < 0.1 * honest_norm
    assert np.linalg.norm(mean.update - expected.update) > 3 * honest_norm


@pytest.mark.parametrize("name", ["median", "trimmed_mean:0.25"])
def test_what_one_contributor_says_of_itself_weighs_no_more_than_its_update(name: str) -> None:
    codec = Codec()
    rows = updates(32)
    sums = codec.sums(rows, 8)
    honest = GroupAggregator.parse(name).combine(sums, codec.decode)
    liar = codec.encode(rows[0], 1, Counts(1e6, 1.0, 2**32 - 1))
    told = sums[0][0] - codec.encode(rows[0], 1).astype(np.int64) + liar
    found = GroupAggregator.parse(name).combine([(told, 4), *sums[1:]], codec.decode)
    assert found.samples == honest.samples == 320
    assert found.loss == honest.loss == pytest.approx(1.0)
    assert found.accuracy == honest.accuracy == pytest.approx(0.5)
    clipped = told.copy()
    clipped[SIZE] += 2**15  # It says that its whole update was clipped, and many times over.
    found = GroupAggregator.parse(name).combine([(clipped, 4), *sums[1:]], codec.decode)
    assert found.spread is not None
    assert (found.clipped, found.spread.clipped) == (0, 0.0)
    # Taken at its word the next range is half as wide again, step by step to the clip norm.
    assert codec.codec.next_public(codec.public, found).clip_range <= codec.public.clip_range


@pytest.mark.parametrize("name", ("mean", *ROBUST))
def test_compressed_and_rotated_updates_are_put_back_group_by_group(name: str) -> None:
    codec = Codec(compression_rate=0.5, rotation=True)
    same = updates(1)[0]
    found = GroupAggregator.parse(name).combine(codec.sums([same] * 8, 4), codec.decode).update
    assert np.count_nonzero(found) == SIZE // 2
    sent = found != 0
    assert found[sent] == pytest.approx(same[sent], abs=1e-3)


@pytest.mark.parametrize("name", ("mean", *ROBUST))
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_few_groups_are_enough_for_a_mean_and_empty_sums_for_none(name: str, groups: int) -> None:
    codec = Codec()
    rows = updates(6)
    found = GroupAggregator.parse(name).combine(codec.sums(rows, groups), codec.decode)
    assert found.update == pytest.approx(np.mean(rows, axis=0), abs=0.1)
    assert found.samples == 60
    with pytest.raises(ParameterError, match="at least one group"):
        GroupAggregator.parse(name).combine([], codec.decode)


def test_sums_that_are_combined_stay_as_they_are() -> None:
    codec = Codec()
    sums = codec.sums(updates(8), 4)
    before = [total.copy() for total, _ in sums]
    for name in ("mean", *ROBUST):
        GroupAggregator.parse(name).combine(sums, codec.decode)
    assert all(np.array_equal(a, b) for a, (b, _) in zip(before, sums, strict=True))


# -- what is written ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*NAMES[:2], NAMES[3], "trimmed_mean:0.125"])
def test_what_is_read_is_written_the_same(text: str) -> None:
    assert str(GroupAggregator.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("krum", "use one of mean, median, trimmed_mean, norm_filter"),
        ("trimmed_mean", "above 0, below 0.5"),
        ("trimmed_mean:0.5", "above 0, below 0.5"),
        ("trimmed_mean:nan", "above 0, below 0.5"),
        ("trimmed_mean:-0.1", "above 0, below 0.5"),
        ("trimmed_mean:few", "needs a number"),
        ("trimmed_mean:", "needs a number"),
        ("median:0.1", "cuts nothing"),
    ],
)
def test_what_is_no_aggregator_is_refused_in_a_line(text: str, words: str) -> None:
    with pytest.raises(ParameterError, match=words) as caught:
        GroupAggregator.parse(text)
    assert "\n" not in str(caught.value)
