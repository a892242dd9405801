"""What the tests of the rings and of the plans share."""

from __future__ import annotations

from functools import cache

import pytest

from mphe.arithmetic.ring import Element, Ring
from mphe.arithmetic.rings import RINGS, RingParameters
from mphe.arithmetic.sampling import uniform
from tests.support import integers_to_element, seeded

CNN = 199_658  # values of the model by which plans are measured

ALL_RINGS = pytest.mark.parametrize("parameters", RINGS, ids=lambda ring: ring.name)


@cache
def ring_of(parameters: RingParameters) -> Ring:
    return Ring(parameters)


def sample(ring: Ring, label: str) -> Element:
    """Return a uniform element whose first coefficients are the extremes of [0, q)."""
    element = uniform(seeded(label), ring)
    edges = [0, 1, ring.modulus - 1, ring.modulus - 2, ring.modulus // 2, ring.modulus // 2 + 1]
    element[:, : len(edges)] = integers_to_element(ring, edges)
    return element


def times(ring: Ring, left: Element, right: Element) -> Element:
    return ring.reduce(ring.multiply(ring.spectrum(left, 16), ring.spectrum(right, 16)))
