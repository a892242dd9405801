"""The privacy budget of a run, counted by dp-accounting (docs/privacy.md, The budget).

Rényi divergences: at the orders used here those of the discrete Gaussian are at most those of the
continuous one. With sampled batches that is shown for whole orders only, so no others are used.
"""

from functools import cached_property
from math import ceil
from typing import Any

WHOLE_ORDERS = (*range(2, 65), *range(72, 257, 8), 384, 512, 1024)
FRACTIONS = tuple(1 + tenth / 10 for tenth in range(1, 150))
MOST_ROUNDS = 1 << 20
MOST_NOISE = 1e5
# Parties find the multiplier on their own: it is rounded up, so that all find the same.
_DECIMALS = 1000


class Accountant:
    """Says what so many published sums cost."""

    def __init__(self, noise_multiplier: float, sampling_rate: float, delta: float) -> None:
        """Account for Gaussian sums; imports nothing yet.

        Args:
            noise_multiplier: z, deviation of the noise in a sum divided by the sensitivity.
            sampling_rate: q of Poisson-sampled batches; 1 where every sum holds every unit.
            delta: of the guarantee.
        """
        self._noise = noise_multiplier
        self._rate = sampling_rate
        self._delta = delta

    @cached_property
    def _one_round(self) -> Any:
        # dp-accounting takes a second to import, and most runs do not need it.
        from dp_accounting import dp_event

        gaussian = dp_event.GaussianDpEvent(self._noise)
        if self._rate == 1:
            return gaussian
        return dp_event.PoissonSampledDpEvent(self._rate, gaussian)

    def epsilon(self, rounds: int) -> float:
        """Return ε at this δ after so many published sums."""
        if not rounds:
            return 0.0
        from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant

        orders = WHOLE_ORDERS if self._rate < 1 else (*FRACTIONS, *WHOLE_ORDERS)
        accountant = RdpAccountant(orders=orders)
        accountant.compose(self._one_round, rounds)
        return float(accountant.get_epsilon(self._delta))

    def most_rounds(self, epsilon: float) -> int:
        """Return how many sums may be published within ε."""
        low, high = 0, 1
        while high <= MOST_ROUNDS and self.epsilon(high) <= epsilon:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.epsilon(middle) <= epsilon else (low, middle)
        return low


def smallest_noise(epsilon: float, delta: float, sampling_rate: float, rounds: int) -> float | None:
    """Return the smallest noise multiplier for which ε lasts so many rounds, rounded up to 0.001.

    None when there is none below MOST_NOISE.
    """

    def enough(noise: float) -> bool:
        return Accountant(noise, sampling_rate, delta).epsilon(rounds) <= epsilon

    low, high = 0.0, 1.0
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_NOISE:
            return None
    while high - low > 1 / _DECIMALS:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return ceil(high * _DECIMALS) / _DECIMALS
