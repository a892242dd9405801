"""Attack: one contributor moves the model further than its share of a mean.

It puts a number of its own into the slot of its weight, so that all weights add up to nearly
nothing and the mean is divided by that; or it puts the largest value into every slot.
Claim: uniform means are divided by the number of contributors, whatever is reported, and weights
that no clients have, or a mean longer than the clip norm and its rounding, are never published.
Weakened: the mean is divided by the reported weights, and nobody judges it.
"""

from __future__ import annotations

import numpy as np
import pytest

from mphe import Abandoned, PublicRange, Summed, UpdateCodec
from mphe.arithmetic.ring import Integers
from mphe.update import Counts
from mphe.update.quantise import WEIGHT_UNIT, count_digits, half_levels
from tests.simulation import Simulation

SIZE, BITS, CLIP, LIAR = 4000, 16, 3.0, 4
PUBLIC = PublicRange(CLIP)


def codec(weighted: bool = False) -> UpdateCodec:
    return UpdateCodec(SIZE, BITS, CLIP, weighted=weighted)


def honest_updates() -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)
    drawn = {index: rng.standard_normal(SIZE).astype(np.float32) for index in range(1, 5)}
    return {index: update / np.linalg.norm(update) for index, update in drawn.items()}


def encoded(updates: dict[int, np.ndarray]) -> dict[int, Integers]:
    counts = Counts(weight=1.0)
    return {
        index: codec().encode(update, PUBLIC, seed=0, index=index, round=1, counts=counts)
        for index, update in updates.items()
    }


def summed(
    values: dict[int, Integers], monkeypatch: pytest.MonkeyPatch, judging: UpdateCodec | None
) -> Summed | Abandoned:
    """Run a verified round in which the liar's own program checks nothing."""

    def judge(total: Integers, contributors: int) -> str:
        return judging.implausible(total, contributors, PUBLIC) if judging else ""

    length = codec().payload_length
    simulation = Simulation(4, 3, length, verified=True, min_contributors=3, judge=judge)
    simulation.run_setup()
    monkeypatch.setattr("mphe.scheme.encryptor._check_range", lambda values, bits: None)
    return simulation.run_round(values)


def with_a_negative_weight() -> dict[int, Integers]:
    """Return contributions whose weights add up to one unit."""
    values = encoded(honest_updates())
    lowest = -count_digits(BITS)  # the weight is the last of the counts, its lowest digit first
    values[LIAR][lowest] = 1 - 3 * round(1 / WEIGHT_UNIT)
    return values


def with_the_largest_values() -> dict[int, Integers]:
    values = encoded(honest_updates())
    values[LIAR][:SIZE] = 2 * half_levels(BITS)
    return values


def test_a_reported_weight_multiplies_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = summed(with_a_negative_weight(), monkeypatch, None)
    assert isinstance(outcome, Summed) and outcome.contributors == (1, 2, 3, 4)
    obeyed = codec(weighted=True).decode(outcome.total, 4, PUBLIC).update
    right = codec().decode(outcome.total, 4, PUBLIC).update
    assert np.linalg.norm(obeyed) / np.linalg.norm(right) == pytest.approx(4096)


def test_uniform_means_are_divided_by_the_contributors(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = summed(with_a_negative_weight(), monkeypatch, codec())
    assert isinstance(outcome, Summed)
    true = np.mean(list(honest_updates().values()), axis=0)
    mean = codec().decode(outcome.total, 4, PUBLIC).update
    assert np.abs(mean - true).max() < CLIP / half_levels(BITS)


def test_weights_that_no_clients_have_are_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = summed(with_a_negative_weight(), monkeypatch, codec(weighted=True))
    assert isinstance(outcome, Abandoned) and outcome.attempts > 1
    assert "the weights of 4 updates add up to 0.000976562" in outcome.reason
    assert "between 0.00390625 and 32" in outcome.reason


@pytest.mark.parametrize("judged", [False, True])
def test_the_largest_values_in_every_slot(monkeypatch: pytest.MonkeyPatch, judged: bool) -> None:
    outcome = summed(with_the_largest_values(), monkeypatch, codec() if judged else None)
    if judged:
        assert isinstance(outcome, Abandoned) and outcome.attempts > 1
        assert "the mean update has norm 47.44, where honest ones have at most" in outcome.reason
        return
    assert isinstance(outcome, Summed)
    norm = np.linalg.norm(codec().decode(outcome.total, 4, PUBLIC).update)
    assert norm / CLIP == pytest.approx(SIZE**0.5 / 4, rel=0.01)  # 112 for 199,658 values
