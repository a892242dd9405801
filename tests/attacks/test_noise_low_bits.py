"""The low bits of the smudging noise must be as random as the high ones.

Source: a double holds 53 bits, so a standard Gaussian scaled to σ ≈ 2^61 ends in zeros, and what
it is added to shows in its low bits (docs/protocol.md, A round; Peikert 2010/088 for the sum of two
widths). Claim: `add_smudging` hides the low bits. Weakened: one scaled double.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mphe.arithmetic import sampling
from mphe.arithmetic.ring import Limbs, Ring
from mphe.arithmetic.rings import KEY_RING
from mphe.arithmetic.sampling import RandomSource, add_smudging, uniform
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import make_plan
from tests.simulation import SeededSource

Smudge = Callable[[RandomSource, Limbs, float], None]
RING = Ring(KEY_RING)
SIGMA = make_plan(SessionParameters(8, 4, 60, 100)).smudging
BITS = 6


def insecure_add_scaled_double(source: RandomSource, limbs: Limbs, deviation: float) -> None:
    """Add a Gaussian that is a double scaled to the deviation."""
    gaussian, _ = sampling._gaussian_pairs(source, limbs.shape[-1])
    for position, value in enumerate(gaussian * deviation):
        number = int(value)
        limbs[0, position] += number & 0xFFFFFFFF
        limbs[1, position] += number >> 32


def low_bits_read(smudge: Smudge) -> float:
    """Return how often the lowest bits of x survive in x + noise (before the reduction by q)."""
    hidden = uniform(SeededSource("hidden"), RING)
    answer = hidden.copy()
    smudge(SeededSource("smudging"), answer, SIGMA)
    mask = (1 << BITS) - 1
    return float(np.mean((answer[0] & mask) == (hidden[0] & mask)))


def noise_words(count: int) -> Limbs:
    """Return the noise of many coefficients, as int64 modulo 2^64."""
    limbs = np.zeros((3, count), np.int64)
    add_smudging(SeededSource("noise"), Limbs(limbs), SIGMA)
    with np.errstate(over="ignore"):
        words: Limbs = limbs[0] + (limbs[1] << 32)
    return words


def test_sigma_is_beyond_what_a_double_holds() -> None:
    assert SIGMA > 2.0**60


def test_low_bits_of_the_secret_are_read_through_a_scaled_double() -> None:
    assert low_bits_read(insecure_add_scaled_double) > 0.9


def test_low_bits_of_the_secret_drown_in_our_noise() -> None:
    assert abs(low_bits_read(add_smudging) - 2.0**-BITS) < 0.01


@pytest.mark.parametrize("shift", [0, 8, 16, 24, 32, 40, 48])
def test_every_low_byte_of_the_noise_is_uniform(shift: int) -> None:
    count = 1 << 17
    counts = np.bincount((noise_words(count) >> shift) & 0xFF, minlength=256)
    chi_square = float(((counts - count / 256) ** 2 / (count / 256)).sum())
    # 255 degrees of freedom; both ends are six standard deviations away.
    assert 120 < chi_square < 390


def test_noise_has_the_stated_deviation() -> None:
    limbs = np.zeros((3, 1 << 16), np.int64)
    add_smudging(SeededSource("deviation"), Limbs(limbs), SIGMA)
    noise = limbs[0] + limbs[1] * 2.0**32
    assert abs(np.std(noise) / SIGMA - 1) < 0.02
    assert abs(np.mean(noise)) < 6 * SIGMA / 2**8
