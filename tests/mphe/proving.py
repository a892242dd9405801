"""Provers, openings and an independent reading of their proofs, for the tests of proofs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest

from mphe.arithmetic.ring import Element
from mphe.arithmetic.rings import RingParameters
from mphe.arithmetic.sampling import error, ternary, uniform
from mphe.errors import EncodingError
from mphe.scheme.proof import ShortnessProof, challenge_exponents
from mphe.scheme.rlwe import Opening
from tests.mphe.support import ring_of
from tests.support import (
    element_to_integers,
    integers,
    integers_to_element,
    product,
    seeded,
)

LIMIT = 5.0
CONTEXT = b"a context"
HIDDEN = 1 << 24


@cache
def prover_of(parameters: RingParameters, label: str = "reference") -> ShortnessProof:
    ring = ring_of(parameters)
    return ShortnessProof(ring, reference_of(parameters, label))


@cache
def reference_of(parameters: RingParameters, label: str = "reference") -> Element:
    return uniform(seeded(label), ring_of(parameters))


def element_of(parameters: RingParameters, u: Sequence[int], e: Sequence[int]) -> Element:
    """Return a·u + e, by FLINT."""
    ring = ring_of(parameters)
    image = product(element_to_integers(ring, reference_of(parameters)), u, ring.modulus)
    return integers_to_element(ring, [x + y for x, y in zip(image, e, strict=True)])


@cache
def made(parameters: RingParameters, label: str = "opening") -> tuple[Element, Opening, bytes]:
    """Return an element, what it is made of, and a proof of that."""
    source, degree = seeded(label), parameters.degree
    opening = Opening(ternary(source, degree), error(source, degree))
    element = element_of(parameters, integers(opening.secret), integers(opening.error))
    return element, opening, prover_of(parameters).prove(element, opening, CONTEXT, source)


def refused(prover: ShortnessProof, element: Element, context: bytes, data: bytes) -> str:
    with pytest.raises(EncodingError) as caught:
        prover.verify(element, context, data)
    return str(caught.value)


def negacyclic(x: Sequence[int], exponent: int) -> list[int]:
    """Return X^exponent·x, one multiplication by X after the other."""
    x, degree = list(x), len(x)
    if exponent >= degree:
        x, exponent = [-value for value in x], exponent - degree
    return [-value for value in x[degree - exponent :]] + x[: degree - exponent]


def responses_of(parameters: RingParameters, data: bytes) -> tuple[list[int], list[list[int]]]:
    """Return the exponents and responses of a proof; the packing is read with Python integers."""
    degree, packed = parameters.degree, data[32:]
    values: list[int] = []
    for at in range(0, len(packed), 5):
        pair = int.from_bytes(packed[at : at + 5], "little")
        values += [pair % 2**20 - 2**19, (pair >> 20) - 2**19]
    rows = [values[at : at + degree] for at in range(0, len(values), degree)]
    return challenge_exponents(degree, len(rows), data[:32]), rows


def commitment(parameters: RingParameters, element: list[int], i: int, z: list[int]) -> list[int]:
    """Return a·z - X^i·element mod q, by FLINT."""
    ring = ring_of(parameters)
    reference = element_to_integers(ring, reference_of(parameters))
    image = product(reference, z, ring.modulus)
    moved = negacyclic(element, i)
    return [(x - y) % ring.modulus for x, y in zip(image, moved, strict=True)]
