"""How contributors are split into groups."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mphe.scheme import partition
from mphe.wire.messages import UNDIVIDED, Draw

T = bytes(range(32))


def draw_of(groups: int, salt: bytes = b"s" * 32, number: int = 1) -> Draw:
    return Draw(number, groups, salt)


@st.composite
def rounds(draw: st.DrawFn) -> tuple[int, int, int, set[int], bytes]:
    """Return n, m, groups, who contributed (m or more), and a salt."""
    n = draw(st.integers(2, 40))
    m = draw(st.integers(2, n))
    groups = draw(st.integers(1, n // m))
    there = draw(st.sets(st.integers(1, n), min_size=m))
    return n, m, groups, there, draw(st.binary(min_size=32, max_size=32))


@given(rounds())
@settings(deadline=None, derandomize=True, max_examples=300)
def test_groups_are_disjoint_cover_everybody_and_are_large_enough(
    case: tuple[int, int, int, set[int], bytes],
) -> None:
    n, m, groups, there, salt = case
    runs = partition.runs(T, draw_of(groups, salt), n)
    assert sorted(i for run in runs for i in run) == list(range(1, n + 1))
    assert max(map(len, runs)) - min(map(len, runs)) <= 1 and len(runs) == groups
    split = partition.split(runs, there, m)
    assert sorted(i for group in split for i in group) == sorted(there)
    assert all(len(group) >= m and list(group) == sorted(group) for group in split)
    assert 1 <= len(split) <= groups
    assert partition.split(runs, there, m) == split
    # Whoever comes or stays away moves nobody else: runs are only joined, with their neighbours.
    places = {i: place for place, run in enumerate(runs) for i in run}
    order = [sorted({places[i] for i in group}) for group in split]
    assert [p for part in order for p in part] == sorted({places[i] for i in there})


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(1, 9))
@settings(deadline=None, derandomize=True)
def test_a_run_with_too_few_joins_the_next_and_the_last_joins_the_one_before(
    counts: list[int], smallest: int
) -> None:
    if sum(counts) < smallest:
        return
    groups = partition.merge(counts, smallest)
    assert [place for group in groups for place in group] == list(range(len(counts)))
    sums = [sum(counts[place] for place in group) for group in groups]
    assert all(total >= smallest for total in sums)
    for group in groups[:-1]:
        assert sum(counts[place] for place in group[:-1]) < smallest


def test_examples_of_joining() -> None:
    assert partition.merge([4, 4, 4], 4) == [range(0, 1), range(1, 2), range(2, 3)]
    assert partition.merge([3, 4, 4], 4) == [range(0, 2), range(2, 3)]
    assert partition.merge([4, 4, 3], 4) == [range(0, 1), range(1, 3)]
    assert partition.merge([1, 1, 2], 4) == [range(0, 3)]


@pytest.mark.parametrize("other", ["session", "salt", "number"])
def test_groups_depend_on_everything_that_draws_them(other: str) -> None:
    session, draw = T, draw_of(8)
    if other == "session":
        session = bytes(32)
    elif other == "salt":
        draw = replace(draw, salt=b"t" * 32)
    else:
        draw = replace(draw, number=2)
    assert partition.runs(session, draw, 32) != partition.runs(T, draw_of(8), 32)


def test_groups_by_hand() -> None:
    def key(index: int) -> bytes:
        parts = (b"partition", T, (1).to_bytes(4, "big"), b"s" * 32, index.to_bytes(4, "big"))
        return hashlib.sha256(b"".join(len(p).to_bytes(8, "big") + p for p in parts)).digest()

    order = sorted(range(1, 12), key=key)
    cut = [tuple(sorted(part)) for part in (order[:4], order[4:8], order[8:])]
    assert partition.runs(T, draw_of(3), 11) == cut


def test_what_is_told_of_a_draw_hides_its_salt() -> None:
    draw = draw_of(2)
    told = partition.announced(draw)
    assert told == replace(draw, salt=partition.salt_digest(draw.salt)) != draw
    assert partition.announced(UNDIVIDED) == UNDIVIDED


@pytest.mark.parametrize(
    ("draw", "groups", "fits"),
    [
        (UNDIVIDED, 1, True),
        (UNDIVIDED, 2, False),
        (draw_of(2), 1, False),
        (draw_of(2), 2, True),
        (draw_of(3), 2, False),
        (draw_of(2, number=16), 2, True),
        (draw_of(2, number=17), 2, False),
        (draw_of(2, number=0), 2, False),
        (draw_of(2, salt=b"s" * 31), 2, False),
    ],
)
def test_the_form_of_a_draw(draw: Draw, groups: int, fits: bool) -> None:
    assert partition.is_draw(draw, groups) is fits
