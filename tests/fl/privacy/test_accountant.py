"""The budget against closed forms and integrals that do not come from dp-accounting."""

from math import comb, exp, log, sqrt
from statistics import NormalDist

import numpy as np
import pytest

from fl.privacy.accountant import Accountant, smallest_noise
from fl.privacy.privacy import sum_divergence

PHI = NormalDist().cdf


def exact_delta(epsilon: float, noise: float) -> float:
    """Return δ of one Gaussian of sensitivity 1 (Balle and Wang 2018, theorem 8)."""
    return PHI(0.5 / noise - epsilon * noise) - exp(epsilon) * PHI(-0.5 / noise - epsilon * noise)


@pytest.mark.parametrize("noise", [1.0, 20.0])
@pytest.mark.parametrize("rounds", [1, 100])
def test_gaussian_sums_cost_no_less_than_they_do_and_little_more(noise: float, rounds: int) -> None:
    # So many Gaussians of one z are one of z/sqrt(rounds).
    told = Accountant(noise, 1.0, 1e-5).epsilon(rounds)
    joint = noise / sqrt(rounds)
    if joint > 0.2:
        assert exact_delta(told, joint) <= 1e-5
        assert exact_delta(0.87 * told, joint) > 1e-5


def sampled_divergence(order: int, noise: float, rate: float) -> float:
    """Return the Rényi divergence of a sampled Gaussian by adding up both densities."""
    x = np.linspace(-40 * noise, 40 * noise + order, 400_001)
    zero = -(x**2) / (2 * noise**2)
    one = zero + (2 * x - 1) / (2 * noise**2)
    both = np.logaddexp(log(1 - rate) + zero, log(rate) + one)
    density = order * both + (1 - order) * zero - log(noise * sqrt(2 * np.pi))
    return float(log(np.exp(density).sum() * (x[1] - x[0]))) / (order - 1)


def test_a_sampled_sum_costs_what_its_densities_say() -> None:
    noise, rate, delta = 1.5, 0.1, 1e-5
    for rounds in (1, 50):
        told = Accountant(noise, rate, delta).epsilon(rounds)
        # Canonne, Kamath, Steinke 2020, proposition 12, at the orders where numbers stay small.
        found = [
            rounds * sampled_divergence(order, noise, rate)
            + log(1 - 1 / order)
            - log(delta * order) / (order - 1)
            for order in range(2, 25)
        ]
        assert told <= min(found) * 1.001
        assert told == pytest.approx(min(found), rel=0.02)


def test_whole_orders_of_discrete_and_continuous_gaussians_agree() -> None:
    """What docs/privacy.md says of sampled discrete Gaussians, checked by adding up."""
    deviation, shift, rate, order = 4.0, 3, 0.2, 5
    x = np.arange(-400, 401)
    weights = np.exp(-(x**2) / (2 * deviation**2))
    zero = weights / weights.sum()
    moved = np.exp(-((x - shift) ** 2) / (2 * deviation**2)) / weights.sum()
    mixed = (1 - rate) * zero + rate * moved
    with np.errstate(divide="ignore", invalid="ignore"):
        forth = np.nansum(np.where(zero > 0, mixed**order / zero ** (order - 1), 0))
        back = np.nansum(np.where(mixed > 0, zero**order / mixed ** (order - 1), 0))
    noise = deviation / shift
    continuous = sum(
        comb(order, k) * (1 - rate) ** (order - k) * rate**k * exp((k * k - k) / (2 * noise**2))
        for k in range(order + 1)
    )
    assert forth == pytest.approx(continuous, rel=1e-9)
    assert back <= forth
    assert log(continuous) / (order - 1) == pytest.approx(
        sampled_divergence(order, noise, rate), rel=1e-6
    )


@pytest.mark.parametrize(("epsilon", "rate"), [(1.0, 1.0), (8.0, 1.0), (2.0, 0.25)])
def test_the_smallest_noise_lasts_exactly(epsilon: float, rate: float) -> None:
    noise = smallest_noise(epsilon, 1e-5, rate, 40)
    assert noise is not None
    assert Accountant(noise, rate, 1e-5).epsilon(40) <= epsilon
    assert Accountant(noise - 0.003, rate, 1e-5).epsilon(40) > epsilon
    assert Accountant(noise, rate, 1e-5).most_rounds(epsilon) >= 40
    if rate == 1:
        assert exact_delta(epsilon, noise / sqrt(40)) <= 1e-5


def test_most_rounds_is_the_last_that_fits() -> None:
    accountant = Accountant(2.0, 0.3, 1e-5)
    most = accountant.most_rounds(3.0)
    assert accountant.epsilon(most) <= 3.0 < accountant.epsilon(most + 1)
    assert Accountant(0.1, 1.0, 1e-5).most_rounds(1.0) == 0
    assert accountant.epsilon(0) == 0.0


def test_no_noise_is_enough_for_next_to_no_epsilon() -> None:
    assert smallest_noise(1e-7, 1e-5, 1.0, 1000) is None


def test_the_divergence_of_a_sum_bounds_what_adding_up_finds() -> None:
    """Two discrete Gaussians are none; Kairouz, Liu, Steinke 2021 say how far they are from it."""
    for deviation in (0.6, 0.8):  # wider ones differ by less than doubles can tell
        x = np.arange(-60, 61)
        one = np.exp(-(x**2) / (2 * deviation**2))
        one /= one.sum()
        two = np.convolve(one, one)
        wide = np.exp(-(np.arange(-120, 121) ** 2) / (4 * deviation**2))
        wide /= wide.sum()
        inside = slice(115, 126)
        ratio = np.abs(np.log(two[inside] / wide[inside])).max()
        assert 0 < ratio <= sum_divergence(2, deviation)
    assert sum_divergence(100, 3.0) < 1e-35
