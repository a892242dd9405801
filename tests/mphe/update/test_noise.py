"""The discrete Gaussian against probabilities computed by mpmath, and what it draws."""

from collections import Counter
from itertools import pairwise

import mpmath
import numpy as np
import pytest

from mphe.arithmetic.sampling import RandomSource
from mphe.update import noise as discrete_gaussian
from mphe.update.noise import DISTANCE, DiscreteGaussian, parts
from tests.support import ScriptedSource, chi_square_deviation, seeded

ONE = mpmath.mpf(1)


def exact(deviation: float, reach: int) -> list[mpmath.mpf]:
    """Return P(x) for |x| ≤ reach of the discrete Gaussian on all integers."""
    with mpmath.workprec(400):
        width = 2 * mpmath.mpf(deviation) ** 2
        total = mpmath.nsum(lambda x: mpmath.exp(-(x**2) / width), [-mpmath.inf, mpmath.inf])
        return [mpmath.exp(-mpmath.mpf(x**2) / width) / total for x in range(-reach, reach + 1)]


def written_down(gaussian: DiscreteGaussian, table: int = 0) -> list[int]:
    """Return the probabilities of a table, in units of 2^-128."""
    thresholds = [0, *gaussian.tables[table].thresholds, 1 << 128]
    return [high - low for low, high in pairwise(thresholds)]


@pytest.mark.parametrize("deviation", [1.0, 3.0, 3.7123, 9.5])
def test_a_table_is_the_discrete_gaussian_to_the_promised_distance(deviation: float) -> None:
    gaussian = DiscreteGaussian(deviation)
    table, tail = written_down(gaussian), gaussian.tables[0].tail
    with mpmath.workprec(400):
        unit = mpmath.ldexp(1, -128)
        differences = [
            abs(p * unit - q) for p, q in zip(table, exact(deviation, tail), strict=True)
        ]
        outside = 1 - mpmath.fsum(exact(deviation, tail))
        assert (mpmath.fsum(differences) + outside) / 2 < DISTANCE / 2
        assert mpmath.fsum(differences) > 0  # the reference is not the table


@pytest.mark.parametrize("deviation", [64.5, 1000.0])
def test_a_wide_gaussian_made_of_two_is_one(deviation: float) -> None:
    gaussian = DiscreteGaussian(deviation)
    high, low = written_down(gaussian, 0), written_down(gaussian, 1)
    tail_high, tail_low = (table.tail for table in gaussian.tables)
    with mpmath.workprec(400):
        total = mpmath.sqrt(2 * mpmath.pi) * mpmath.mpf(deviation)  # θ₃: right to e^(-2π²σ²)
        for x in (0, 1, 2, 7, gaussian.factor, int(deviation), -int(2 * deviation) - 1):
            terms = []
            for position, weight in enumerate(high):
                rest = x - gaussian.factor * (position - tail_high) + tail_low
                if 0 <= rest < len(low):
                    terms.append(weight * low[rest])
            made = mpmath.fsum(terms) / mpmath.mpf(1 << 256)
            wanted = mpmath.exp(-mpmath.mpf(x**2) / (2 * mpmath.mpf(deviation) ** 2)) / total
            assert abs(made / wanted - 1) < 1e-14, x  # σ1 is a double


@pytest.mark.parametrize("deviation", [1.0, 3.0, 64.0, 300.0])
def test_what_is_drawn_follows_the_probabilities(deviation: float) -> None:
    drawn = DiscreteGaussian(deviation).sample(seeded(f"gaussian {deviation}"), 200_000)
    reach = int(3 * deviation)
    weights = np.exp(-(np.arange(-20 * reach, 20 * reach + 1) ** 2) / (2 * deviation**2))
    expected = (weights / weights.sum() * drawn.size)[19 * reach : 21 * reach + 1].tolist()
    counts = Counter(drawn.tolist())
    inside = [counts[x] for x in range(-reach, reach + 1)]
    outside = drawn.size - sum(inside), drawn.size - sum(expected)
    assert abs(chi_square_deviation([*inside, outside[0]], [*expected, outside[1]])) < 4
    # The variance of 200,000 is off by a factor of 1 ± 0.0032 (one deviation).
    assert np.var(drawn) / deviation**2 == pytest.approx(1, abs=0.013)
    assert np.mean(drawn) == pytest.approx(0, abs=4 * deviation / drawn.size**0.5)


def test_the_narrowest_and_the_widest_have_their_variance() -> None:
    for deviation in (1.0, 12_345.6, 2.0**24):
        drawn = DiscreteGaussian(deviation).sample(seeded("variance"), 100_000)
        assert np.var(drawn.astype(float)) / deviation**2 == pytest.approx(1, abs=0.02)
        low_bits = np.bincount(drawn % 4, minlength=4) / drawn.size
        if deviation > 1:
            assert np.abs(low_bits - 0.25).max() < 0.006


@pytest.mark.parametrize("deviation", [0.99, 0.0, -3.0, float("nan"), float("inf"), 2.0**25])
def test_other_deviations_are_refused(deviation: float) -> None:
    with pytest.raises(ValueError, match="not available"):
        DiscreteGaussian(deviation)


def test_the_low_bits_decide_where_the_high_ones_equal_a_threshold() -> None:
    gaussian = DiscreteGaussian(3.0)
    (table,) = gaussian.tables
    for position in (0, 5, table.tail, len(table.thresholds) - 1):
        for uniform in (table.thresholds[position] - 1, table.thresholds[position]):
            if uniform < 0:
                continue
            high, low = divmod(uniform, 1 << 64)
            script = high.to_bytes(8, "little") + low.to_bytes(8, "little")
            reached = sum(threshold <= uniform for threshold in table.thresholds)
            assert table.sample(ScriptedSource(script), 1)[0] == reached - table.tail


def test_parts_have_the_variance_and_the_width_that_smooths() -> None:
    for deviation in (64.1, 100.0, 5000.0, 2.0**24):
        factor, (high, low) = parts(deviation)
        assert factor**2 * high**2 + low**2 == pytest.approx(deviation**2, rel=1e-12)
        width = high * low / np.sqrt(low**2 + (factor * high) ** 2)
        # Poisson summation: probabilities are right up to a factor of 1 ± 2·exp(-2π²·width²).
        assert 2 * np.exp(-2 * np.pi**2 * width**2) < 2.0**-230
    assert parts(64.0) == (1, (64.0,))


def test_samples_come_from_the_system_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    one = DiscreteGaussian(10.0).sample(RandomSource.from_system(), 50)
    two = DiscreteGaussian(10.0).sample(RandomSource.from_system(), 50)
    assert one.tolist() != two.tolist()
    assert "numpy.random" not in vars(discrete_gaussian)
