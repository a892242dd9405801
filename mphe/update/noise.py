"""The discrete Gaussian on the integers, P(x) ∝ exp(-x²/2σ²), from secret randomness.

A table of cumulative probabilities of 128 bits is searched with 128 random bits. A wide Gaussian
is k·x1 + x2 of two narrow ones (Peikert 2010/088, theorem 3.1): x2 is three times as wide as k,
which makes every probability right up to a factor of 1 ± 2^-230.
"""

from bisect import bisect_right
from decimal import Decimal, localcontext
from functools import lru_cache
from itertools import accumulate
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from mphe.arithmetic.sampling import RandomSource

Small = NDArray[np.int64]

MIN_DEVIATION = 1.0
MAX_DEVIATION = float(1 << 24)
DISTANCE = 2.0**-109
"""Statistical distance of one sample from the discrete Gaussian: bounds both tables' errors."""
_UNIFORM_BITS = 128
_FIXED_POINT = 256
# exp(-x²/2σ²) is below 2^-129 beyond so many deviations.
_TAIL = 13.4
_ONE_TABLE = 64.0
_SMOOTH = 3


class _Table:
    """One Gaussian whose cumulative probabilities are written down."""

    def __init__(self, deviation: float) -> None:
        self.tail = ceil(_TAIL * deviation)
        weights = _weights(deviation, self.tail)
        cumulated = list(accumulate(weights[:0:-1] + weights))
        total = cumulated[-1]
        self.thresholds = [(value << _UNIFORM_BITS) // total for value in cumulated[:-1]]
        self._high = np.array([value >> 64 for value in self.thresholds], np.uint64)

    def sample(self, source: RandomSource, count: int) -> Small:
        """Return how many thresholds a uniform 128-bit number reaches, centred, int64 (count,)."""
        high = source.words(count)
        below = np.searchsorted(self._high, high, side="right")
        # The low 64 bits matter only where the high ones equal those of a threshold.
        ties = np.flatnonzero((below > 0) & (self._high[np.maximum(below, 1) - 1] == high))
        for tie, low in zip(ties, source.words(ties.size), strict=True):
            below[tie] = bisect_right(self.thresholds, int(high[tie]) << 64 | int(low))
        return below.astype(np.int64) - self.tail


def _weights(deviation: float, tail: int) -> list[int]:
    """Return exp(-x²/2σ²)·2^256 for x = 0..tail: w(x+1) = w(x)·r(x), r(x+1) = r(x)·e^(-1/σ²)."""
    with localcontext() as context:
        context.prec = 100
        variance = Decimal(deviation) ** 2
        one = Decimal(1 << _FIXED_POINT)
        ratio = int((-1 / (2 * variance)).exp() * one)
        shrink = int((-1 / variance).exp() * one)
    weights = [1 << _FIXED_POINT]
    for _ in range(tail):
        weights.append(weights[-1] * ratio >> _FIXED_POINT)
        ratio = ratio * shrink >> _FIXED_POINT
    return weights


class DiscreteGaussian:
    """Samples of one deviation."""

    def __init__(self, deviation: float) -> None:
        """Make the tables; ValueError for a deviation that cannot be sampled."""
        if not MIN_DEVIATION <= deviation <= MAX_DEVIATION:
            raise ValueError(f"a discrete Gaussian of deviation {deviation:g} is not available")
        self.factor, widths = parts(deviation)
        self.tables = [_Table(width) for width in widths]

    def sample(self, source: RandomSource, count: int) -> Small:
        """Return independent samples, int64 (count,)."""
        total = self.tables[-1].sample(source, count)
        if len(self.tables) > 1:
            total += self.factor * self.tables[0].sample(source, count)
        return total


@lru_cache(maxsize=4)
def gaussian(deviation: float) -> DiscreteGaussian:
    """Return the samples of a deviation, with the tables of last time when it is the same."""
    return DiscreteGaussian(deviation)


def parts(deviation: float) -> tuple[int, tuple[float, ...]]:
    """Return k and the deviations of x1 and x2 with σ² = k²·σ1² + σ2²; of one when σ is small."""
    if deviation <= _ONE_TABLE:
        return 1, (deviation,)
    factor = ceil(sqrt(deviation / _SMOOTH))
    low = float(_SMOOTH * factor)
    return factor, (sqrt(deviation**2 - low**2) / factor, low)
