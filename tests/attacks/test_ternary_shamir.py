"""One Shamir share must not reveal a ternary secret.

Claim: with uniform coefficients a single share is uniform whatever the secret is (Shamir 1979).
Weakened: "small" coefficients, as for an RLWE secret. A share of degree 1 at point x ≥ 3 is then
s + x·A with s and A in {-1, 0, 1}, and s is the residue modulo x (docs/protocol.md, Sampling).
"""

from __future__ import annotations

import numpy as np
import pytest

from mphe.arithmetic.ring import Element, Ring, Small
from mphe.arithmetic.rings import KEY_RING
from mphe.arithmetic.sampling import RandomSource, ternary
from mphe.scheme import sharing
from tests.simulation import SeededSource, centred, integers

RING = Ring(KEY_RING)
POINTS = range(3, 9)


def insecure_ternary_coefficients(source: RandomSource, ring: Ring) -> Element:
    """Draw a Shamir coefficient like a secret."""
    return ring.from_small(ternary(source, ring.degree))


def read_secret(share: Element, point: int) -> Small:
    """Return the ternary s that explains a share s + point·A for a small A."""
    values = [centred(centred(v, RING.modulus), point) for v in integers(share)]
    return Small(np.array(values))


def agreement(point: int) -> float:
    """Return how much of a fresh ternary secret is read from the one share at that point."""
    source = SeededSource("dealer")
    secret = ternary(source, RING.degree)
    shares = sharing.gen_shares(RING, RING.from_small(secret), 2, list(POINTS), source)
    return float(np.mean(read_secret(shares[point], point) == secret))


@pytest.mark.parametrize("point", POINTS)
def test_one_share_reveals_the_secret_when_coefficients_are_ternary(
    point: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "uniform", insecure_ternary_coefficients)
    assert agreement(point) == 1.0


@pytest.mark.parametrize("point", POINTS)
def test_one_share_with_uniform_coefficients_reveals_nothing(point: int) -> None:
    # A guess is right for a third of the coefficients at best (six standard deviations).
    assert agreement(point) < 1 / 3 + 6 * (2 / 9 / 4096) ** 0.5


def test_share_of_zero_and_share_of_a_secret_look_alike() -> None:
    secret = RING.from_small(ternary(SeededSource("secret"), RING.degree))
    for value in (RING.zero(), secret):
        share = sharing.gen_shares(RING, value, 2, [5], SeededSource("polynomial"))[5]
        counts = np.bincount((share[-1] >> 24).ravel(), minlength=256)
        chi_square = float(((counts - 16.0) ** 2 / 16.0).sum())
        assert 150 < chi_square < 390
