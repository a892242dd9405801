"""mphe.arithmetic.ring: elements on the wire."""

from __future__ import annotations

import numpy as np
import pytest

from mphe.arithmetic.ring import Element, Limbs
from mphe.arithmetic.rings import KEY_RING, RingParameters
from mphe.arithmetic.sampling import uniform
from mphe.errors import EncodingError
from tests.mphe.support import ALL_RINGS, ring_of, sample
from tests.support import (
    centred,
    element_to_integers,
    integers_to_element,
    limbs_to_integers,
    seeded,
)


@ALL_RINGS
@pytest.mark.parametrize("coefficients", [1, 7, 4096])
def test_whole_elements_come_back_from_bytes(parameters: RingParameters, coefficients: int) -> None:
    ring = ring_of(parameters)
    element = sample(ring, "wire")[:, :coefficients]
    data = ring.to_bytes(Element(Limbs(element)))
    assert len(data) == ring.wire_length(coefficients) == coefficients * parameters.bits // 8
    assert np.array_equal(ring.from_bytes(data, coefficients), element)


@ALL_RINGS
@pytest.mark.parametrize("dropped", range(1, 9))
def test_dropped_bytes_cost_at_most_half_their_weight(
    parameters: RingParameters, dropped: int
) -> None:
    ring = ring_of(parameters)
    element = uniform(seeded("dropped"), ring)
    # What lies closer to q than the midpoint reaches cannot be read back; it is that rare.
    edges = [0, 1, 255, 256, ring.modulus - (1 << (8 * dropped)), (1 << (8 * dropped)) - 1]
    element[:, : len(edges)] = integers_to_element(ring, edges)
    data = ring.to_bytes(element, dropped)
    assert len(data) == ring.wire_length(ring.degree, dropped)
    assert len(data) == ring.degree * (parameters.bits // 8 - dropped)
    back = ring.from_bytes(data, ring.degree, dropped)
    middle = 1 << (8 * dropped - 1)
    before, after = element_to_integers(ring, element), element_to_integers(ring, back)
    assert all(x - y <= middle and y - x <= middle for x, y in zip(before, after, strict=True))
    assert all(y & ((1 << (8 * dropped)) - 1) == middle for y in after)


@ALL_RINGS
@pytest.mark.parametrize("dropped", range(1, 9))
def test_the_largest_residues_survive_dropped_bytes(
    parameters: RingParameters, dropped: int
) -> None:
    # Their midpoint can lie above q; what is read is canonical and as close, around the circle.
    ring = ring_of(parameters)
    values = [ring.modulus - distance for distance in range(1, 600)]
    element = integers_to_element(ring, values)
    back = ring.from_bytes(ring.to_bytes(element, dropped), len(values), dropped)
    assert max(limbs_to_integers(back)) < ring.modulus
    pairs = zip(values, limbs_to_integers(back), strict=True)
    errors = centred((x - y for x, y in pairs), ring.modulus)
    assert max(map(abs, errors)) <= 1 << (8 * dropped - 1)


@ALL_RINGS
@pytest.mark.parametrize("dropped", [0, 3, 4, 5])
def test_a_wrong_length_is_refused(parameters: RingParameters, dropped: int) -> None:
    ring = ring_of(parameters)
    data = ring.to_bytes(Element(Limbs(sample(ring, "length")[:, 8:16])), dropped)
    for wrong in (b"", data[:-1], data + b"\0", data[: len(data) // 2], data * 2):
        with pytest.raises(EncodingError, match="bytes where"):
            ring.from_bytes(wrong, 8, dropped)


@ALL_RINGS
@pytest.mark.parametrize("position", [0, 3, 7])
def test_residues_that_are_not_canonical_are_refused(
    parameters: RingParameters, position: int
) -> None:
    ring = ring_of(parameters)
    size = 4 * ring.limbs
    for value, canonical in (
        (ring.modulus - 1, True),
        (ring.modulus, False),
        (ring.modulus + 1, False),
        ((1 << parameters.bits) - 1, False),
    ):
        raw = np.zeros((8, size), np.uint8)
        raw[position] = np.frombuffer(value.to_bytes(size, "little"), np.uint8)
        data = np.ascontiguousarray(raw.view("<u4").T).tobytes()
        if canonical:
            assert element_to_integers(ring, ring.from_bytes(data, 8))[position] == value
        else:
            with pytest.raises(EncodingError, match="not below the modulus"):
                ring.from_bytes(data, 8)


def test_the_wire_form_is_limb_after_limb_little_endian() -> None:
    ring = ring_of(KEY_RING)
    element = integers_to_element(ring, [0x0B0A0908_07060504_03020100, 1])
    assert ring.to_bytes(element).hex(" ", 4) == (
        "00010203 01000000 04050607 00000000 08090a0b 00000000"
    )
    assert ring.to_bytes(element, 3).hex() == "0300" + "0405060700000000" + "08090a0b00000000"
