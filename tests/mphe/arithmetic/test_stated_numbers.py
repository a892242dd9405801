"""Numbers that the documents state and no code needs: computed here from what the code has."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import comb, erf, exp, log2, pi, sqrt

import numpy as np
import pytest

from mphe.arithmetic.noise import KEY_PAIRS, PART_BITS, SMOOTHING
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import Plan, make_plan

PLANS = [
    make_plan(SessionParameters(n, t, 199_658, 100, **more))
    for n, t, more in (
        (4, 3, {}),
        (8, 4, {}),
        (8, 6, {"verified": True}),
        (100, 50, {}),
        (8, 4, {"encryption": "direct"}),
    )
]

# -- smudging (parameters.md, Smudging and the decryption budget) ------------------------------


@pytest.mark.parametrize("plan", PLANS)
def test_a_session_s_answers_are_within_a_total_variation_of_2_to_the_minus_34_8(
    plan: Plan,
) -> None:
    """KL of τ·N Gaussians of σ and the same moved by E each, and Pinsker's inequality."""
    moved = plan.budget * plan.threshold.ring.degree * (plan.noise / plan.smudging) ** 2
    divergence = moved / 2
    assert log2(divergence) == pytest.approx(-68.6, abs=0.05)
    assert log2(sqrt(divergence / 2)) == pytest.approx(-34.8, abs=0.05)
    # One Gaussian that is moved as far: what Pinsker's inequality gives away is little.
    assert log2(erf(sqrt(moved) / sqrt(8))) == pytest.approx(-35.1, abs=0.05)


@lru_cache
def masses(widths: tuple[float, ...], unit: int) -> np.ndarray:
    """Return P(Σ unit^i·rint(G_i) = s) for Gaussians G_i of these widths, lowest part first."""
    total = np.ones(1)
    for part, width in enumerate(widths):
        reach = int(13 * width) + 1
        cuts = np.arange(-reach, reach + 2) - 0.5
        below = np.array([0.5 * (1 + erf(cut / width / sqrt(2))) for cut in cuts])
        # From the right where that is more exact.
        above = np.array([0.5 * (1 + erf(-cut / width / sqrt(2))) for cut in cuts])
        single = np.where(cuts[:-1] < 0, np.diff(below), -np.diff(above))
        lower, step = total, unit**part
        total = np.zeros((len(single) - 1) * step + len(lower))
        for place, mass in enumerate(single):
            total[place * step : place * step + len(lower)] += mass * lower
    return total


def divergence(mass: np.ndarray, by: int) -> float:
    """Return KL(S ‖ S + by) over what doubles can tell from zero."""
    here, there = mass[by:], mass[:-by]
    known = (here > 1e-200) & (there > 1e-200)
    return float((here[known] * np.log(here[known] / there[known])).sum())


@pytest.mark.parametrize("top", [SMOOTHING, 20.0])
@pytest.mark.parametrize("by", [1, 3, 16, 50])
def test_rounding_the_parts_costs_no_divergence(top: float, by: int) -> None:
    """Parts as in `noise.smudging_widths`, for units of 2^4: no more than the Gaussian shows."""
    unit = 16
    lower = 2 * SMOOTHING * unit
    widths = (lower, lower, top)
    variance = sum((width * unit**part) ** 2 for part, width in enumerate(widths))
    shown = divergence(masses(widths, unit), by)
    assert shown == pytest.approx(by**2 / 2 / variance, rel=0.02, abs=1e-13)
    assert shown <= by**2 / 2 / variance + 1e-13


def test_a_part_that_is_too_narrow_would_show_its_unit() -> None:
    unit, widths = 16, (0.3 * 16, 20.0)
    variance = widths[0] ** 2 + (unit * widths[1]) ** 2
    assert divergence(masses(widths, unit), 8) > 2 * 8**2 / 2 / variance


def test_how_much_of_the_unit_shows() -> None:
    """exp(-2π²·a²b²/(a² + b²)) for a part of a units below one of width b."""
    a = 2 * SMOOTHING

    def aliasing(b: float) -> float:
        return -2 * pi**2 * a**2 * b**2 / (a**2 + b**2) * log2(exp(1))

    assert aliasing(a * 2.0**PART_BITS) == pytest.approx(-551, abs=1)
    assert aliasing(SMOOTHING) == pytest.approx(-110, abs=0.5)


# -- one-time keys (parameters.md, The three rings) --------------------------------------------


def given_the_sum(total: int) -> Fraction:
    """Return the variance of k1 given k1 + k2, from the probabilities of both."""
    size = 2 * KEY_PAIRS
    chances = {
        k: comb(size, KEY_PAIRS + k) * comb(size, KEY_PAIRS + total - k)
        for k in range(-KEY_PAIRS, KEY_PAIRS + 1)
        if 0 <= KEY_PAIRS + total - k <= size
    }
    all_of_them = sum(chances.values())
    mean = Fraction(sum(k * chance for k, chance in chances.items()), all_of_them)
    squares = Fraction(sum(k * k * chance for k, chance in chances.items()), all_of_them)
    return squares - mean**2


def test_a_one_time_key_given_the_sum_of_two_is_as_wide_on_average() -> None:
    size = 2 * KEY_PAIRS
    chance = {k: Fraction(comb(2 * size, size + k), 4**size) for k in range(-size, size + 1)}
    variances = {k: given_the_sum(k) for k in chance}
    assert variances[0] == Fraction(size**2, 652) and variances[26] == Fraction(size**2 - 676, 652)
    assert sum(chance[k] * variances[k] for k in chance) == Fraction(KEY_PAIRS, 4)
    assert sqrt(KEY_PAIRS / 4) == pytest.approx(3.2, abs=0.01)
    assert sqrt(variances[26]) == pytest.approx(3.05, abs=0.01)
    narrower = sum(chance[k] for k in chance if variances[k] < Fraction("3.2") ** 2)
    assert float(narrower) == pytest.approx(0.31, abs=0.01)
