"""Shamir's secret sharing over the field Z_q, coefficient by coefficient (Shamir 1979).

    f(x) = s + A_1·x + … + A_(t-1)·x^(t-1),   share_j = f(j),   s = Σ_D λ_j·f(j)
    λ_j = Π_(l in D, l ≠ j) l / (l - j)   mod q

The A_d are uniform in R_q: ternary ones would let one share reveal a ternary secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mphe.arithmetic.ring import Limbs, Ring, sum_elements
from mphe.arithmetic.sampling import RandomSource, uniform
from mphe.errors import ParameterError


def gen_shares(
    ring: Ring, secret: Limbs, threshold: int, points: Sequence[int], source: RandomSource
) -> dict[int, Limbs]:
    """Return f(j) for each point j, canonical (L, N).

    Raises:
        ParameterError: a point is not positive (f(0) is the secret).
    """
    coefficients = [uniform(source, ring) for _ in range(threshold - 1)]
    return {point: _evaluate(ring, secret, coefficients, point) for point in points}


def _evaluate(ring: Ring, secret: Limbs, coefficients: Sequence[Limbs], point: int) -> Limbs:
    """Return secret + Σ coefficients[d-1]·point^d by Horner's rule."""
    if not 0 < point < 1 << 20:
        raise ParameterError(f"Shamir point {point} is not a client's index")
    value = ring.zero()
    for coefficient in reversed(coefficients):
        value = ring.reduce((value + coefficient) * point)
    return ring.reduce(value + secret)


def lagrange_coefficient(modulus: int, index: int, active: Sequence[int]) -> int:
    """Return λ_j at 0 for the active set D.

    Raises:
        ParameterError: D has duplicates or points that are not positive, or j is not in it.
    """
    if index not in active or len(set(active)) != len(active) or min(active) < 1:
        raise ParameterError(f"active set {tuple(active)} is not a set that contains {index}")
    numerator, denominator = 1, 1
    for other in active:
        if other != index:
            numerator = numerator * other % modulus
            denominator = denominator * (other - index) % modulus
    return numerator * pow(denominator, -1, modulus) % modulus


def aggregate_shares(ring: Ring, shares: Sequence[Limbs]) -> Limbs:
    """Return the share of the sum of several secrets: the sum of the shares."""
    return ring.reduce(sum_elements(shares))


def reconstruct(ring: Ring, shares: Mapping[int, Limbs]) -> Limbs:
    """Return the secret from the shares of an active set, canonical (L, N).

    Nobody does this in the protocol: decryptors multiply by λ_j and mask the product. It is what
    t colluding clients can do.
    """
    active = sorted(shares)
    total = ring.zero()
    for index in active:
        factor = lagrange_coefficient(ring.modulus, index, active)
        total += ring.multiply_scalar(shares[index], factor)
    return ring.reduce(total)
