"""A proof shows nothing of the opening: the same responses, as often, for every secret."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mphe.arithmetic.noise import ERROR_PAIRS
from mphe.arithmetic.ring import Element, Integers, Limbs, Small
from mphe.arithmetic.rings import DATA_RING, RingParameters
from mphe.arithmetic.sampling import RandomSource
from mphe.scheme import proof
from mphe.scheme.proof import GAMMA
from mphe.scheme.rlwe import Opening
from tests.mphe.proving import (
    HIDDEN,
    LIMIT,
    commitment,
    element_of,
    made,
    negacyclic,
    prover_of,
    responses_of,
)
from tests.mphe.support import ring_of
from tests.support import (
    TINY,
    element_to_integers,
    integers,
    seeded,
)

# -- silence ---------------------------------------------------------------------------------------


def visible(values: Integers, secrets: Sequence[int], half: int, margin: int) -> list[list[int]]:
    """Return for each secret what is shown of these masks: y + secret, where it is accepted."""
    return [
        [y + s for y in integers(values) if proof._within(np.array([y + s]), half, margin)]
        for s in secrets
    ]


def near_the_ends(half: int, width: int) -> Integers:
    return np.concatenate((np.arange(-half, -half + width), np.arange(half - width, half)))


def test_the_same_responses_are_shown_for_every_secret() -> None:
    # Masks are uniform, so equal sets are equal distributions.
    shown = visible(near_the_ends(GAMMA, 20), (-1, 0, 1), GAMMA, proof._TERNARY)
    inner = [{z for z in group if abs(z) > GAMMA - 15} for group in shown]
    assert inner[0] == inner[1] == inner[2]
    assert len(inner[0]) == 2 * 15 - 3
    leaking = visible(near_the_ends(GAMMA, 20), (-1, 1), GAMMA, 0)
    assert set(leaking[0]) ^ set(leaking[1]) >= {-GAMMA, GAMMA - 1}


def test_the_same_low_parts_are_shown_for_every_error() -> None:
    half = HIDDEN // 2
    low = near_the_ends(half, 100) + half
    shown = []
    for e in (-21, -7, 0, 1, 21):
        accepted = set()
        for value in integers(low):
            image = np.array([[value + 5 * HIDDEN], [9]])
            if proof._keeps_high_part([Element(Limbs(image))], np.array([[e]])):
                accepted.add(value - e)
        shown.append({v for v in accepted if min(v, HIDDEN - 1 - v) < 70})
    assert all(group == shown[0] for group in shown)
    # 21 on either side are never shown.
    assert len(shown[0]) == 2 * (70 - ERROR_PAIRS)


Pair = tuple[Integers, Integers]


def by_sign(proofs: int, opening: Opening) -> tuple[Pair, Pair]:
    """Return z where X^i·u is positive and negative, and low parts where X^i·e is."""
    element = element_of(TINY, integers(opening.secret), integers(opening.error))
    values = element_to_integers(ring_of(TINY), element)
    z: dict[bool, list[int]] = {True: [], False: []}
    low: dict[bool, list[int]] = {True: [], False: []}
    source: RandomSource = seeded("silence")
    for number in range(proofs):
        data = prover_of(TINY).prove(element, opening, b"%d" % number, source)
        exponents, rows = responses_of(TINY, data)
        for i, row in zip(exponents, shifted(rows), strict=True):
            signs = negacyclic(integers(opening.secret), i)
            seen = commitment(TINY, values, i, row)
            for sign, response, image in zip(signs, row, seen, strict=True):
                z[sign > 0].append(response)
                low[sign > 0].append(image % (1 << SMALL_HIDDEN))
    return (np.array(z[True]), np.array(z[False])), (np.array(low[True]), np.array(low[False]))


def shifted(rows: list[list[int]]) -> list[list[int]]:
    """Return responses of a prover with a smaller range: what was added is its own bound."""
    return [[value + 2**19 - proof.GAMMA for value in row] for row in rows]


def two_sample_deviation(groups: Pair, edges: list[int]) -> float:
    """Return how far two histograms are apart, in deviations of a chi-square statistic."""
    counts = [np.histogram(group, edges)[0].astype(float) for group in groups]
    total = counts[0] + counts[1]
    used = total > 0
    share = [count.sum() / total.sum() for count in counts]
    statistic = sum(
        ((count - part * total)[used] ** 2 / (part * total)[used]).sum()
        for count, part in zip(counts, share, strict=True)
    )
    freedom = int(used.sum()) - 1
    return float((statistic - freedom) / np.sqrt(2 * freedom))


SMALL_GAMMA, SMALL_HIDDEN = 512, 16
RESPONSE_EDGES = [-514, -512, -511, -510, -509, -256, 0, 256, 508, 509, 510, 511, 514]
LOW_EDGES = [0, 21, 42, 63, 84, 1 << 15, 65536 - 84, 65536 - 63, 65536 - 42, 65536 - 21, 65536]


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Make ends so near that a few hundred proofs reach them often."""
    monkeypatch.setattr(proof, "GAMMA", SMALL_GAMMA)
    monkeypatch.setattr(proof, "HIDDEN_BITS", SMALL_HIDDEN)
    monkeypatch.setattr(proof, "HIDDEN_BYTES", SMALL_HIDDEN // 8)
    return monkeypatch


LARGEST = Opening(Small(np.full(TINY.degree, 1)), Small(np.full(TINY.degree, ERROR_PAIRS)))


@pytest.mark.usefixtures("small_ranges")
def test_proofs_do_not_depend_on_what_they_hide() -> None:
    responses, low = by_sign(1000, LARGEST)
    assert abs(two_sample_deviation(responses, RESPONSE_EDGES)) < LIMIT
    assert abs(two_sample_deviation(low, LOW_EDGES)) < LIMIT
    for group, seen in zip(responses, low, strict=True):
        assert (group.min(), group.max()) == (1 - SMALL_GAMMA, SMALL_GAMMA - 2)
        assert seen.min() >= ERROR_PAIRS and seen.max() < (1 << SMALL_HIDDEN) - ERROR_PAIRS


@pytest.mark.parametrize("margin", ["_TERNARY", "ERROR_PAIRS"])
def test_without_a_margin_proofs_show_what_they_hide(
    margin: str, small_ranges: pytest.MonkeyPatch
) -> None:
    small_ranges.setattr(proof, margin, 0)
    responses, low = by_sign(1000, LARGEST)
    leaks = {
        "_TERNARY": two_sample_deviation(responses, RESPONSE_EDGES),
        "ERROR_PAIRS": two_sample_deviation(low, LOW_EDGES),
    }
    print(leaks)
    assert leaks.pop(margin) > 3 * LIMIT
    assert abs(leaks.popitem()[1]) < LIMIT


@pytest.mark.parametrize("parameters", [DATA_RING], ids=lambda ring: ring.name)
def test_responses_are_uniform(parameters: RingParameters) -> None:
    for label in ("opening", "opening 1"):
        _, rows = responses_of(parameters, made(parameters, label)[2])
        values = np.array(rows).reshape(-1) + GAMMA
        counts = np.bincount(values >> 10, minlength=1024)
        mean = values.size / 1024
        assert counts.size == 1024
        assert abs(((counts - mean) ** 2 / mean).sum() - 1023) < LIMIT * np.sqrt(2 * 1023)
        low_bits = np.bincount(values & 0xFF, minlength=256)
        mean = values.size / 256
        assert abs(((low_bits - mean) ** 2 / mean).sum() - 255) < LIMIT * np.sqrt(2 * 255)
