"""mphe.arithmetic.ring: exact arithmetic, against Python integers and FLINT."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import isprime

from mphe.arithmetic.ring import Limbs, Ring, Small, sum_elements
from mphe.arithmetic.rings import RINGS, RingParameters
from mphe.arithmetic.sampling import one_time, ternary, uniform
from tests.mphe.support import ALL_RINGS, ring_of, sample, times
from tests.support import (
    TINY,
    element_to_integers,
    integers,
    integers_to_element,
    limbs_to_integers,
    product,
    seeded,
)

PROPERTY = settings(deadline=None, max_examples=60, derandomize=True)

tiny = Ring(TINY)
extreme = st.sampled_from([0, 1, 2, 58, 59, 1 << 31, (1 << 32) - 1, 1 << 32, TINY.modulus // 2])
coefficient = st.one_of(
    st.integers(0, TINY.modulus - 1), extreme, extreme.map(lambda value: TINY.modulus - 1 - value)
)
polynomial = st.lists(coefficient, min_size=TINY.degree, max_size=TINY.degree)
ternary_polynomial = st.lists(st.integers(-1, 1), min_size=TINY.degree, max_size=TINY.degree)


# -- the modulus -------------------------------------------------------------------------------


@ALL_RINGS
def test_modulus_is_a_pseudo_mersenne_prime(parameters: RingParameters) -> None:
    assert parameters.modulus == 2 ** (32 * parameters.limbs) - parameters.subtrahend
    assert 0 < parameters.subtrahend < 1 << 10
    assert isprime(parameters.modulus)


def test_the_rings_are_those_of_the_design() -> None:
    assert [(ring.degree, ring.modulus) for ring in RINGS] == [
        (4096, 2**96 - 17),
        (8192, 2**192 - 237),
        (16384, 2**416 - 435),
    ]


# -- reduction and digits ----------------------------------------------------------------------


@ALL_RINGS
@pytest.mark.parametrize("bits", [1, 31, 32, 33, 54, 61])
def test_reduce_brings_signed_limbs_to_canonical_form(
    parameters: RingParameters, bits: int
) -> None:
    ring = ring_of(parameters)
    words = seeded(bits).words(ring.limbs * ring.degree).reshape(ring.limbs, ring.degree)
    limbs = (words >> np.uint64(63 - bits)).astype(np.int64) - (1 << bits)
    expected = [value % ring.modulus for value in limbs_to_integers(limbs)]
    assert np.array_equal(ring.reduce(Limbs(limbs)), integers_to_element(ring, expected))


@ALL_RINGS
def test_reduce_is_right_around_every_multiple_of_the_modulus(parameters: RingParameters) -> None:
    ring = ring_of(parameters)
    values = [
        multiple * edge + offset
        for edge in (ring.modulus, 1 << parameters.bits)
        for multiple in range(-3, 4)
        for offset in (-500, -435, -237, -18, -17, -16, -1, 0, 1, 16, 17, 18, 435, 500)
    ]
    limbs = np.zeros((ring.limbs, len(values)), np.int64)
    for index in range(ring.limbs - 1):
        limbs[index] = [value >> (32 * index) & 0xFFFFFFFF for value in values]
    limbs[-1] = [value >> (32 * (ring.limbs - 1)) for value in values]
    assert limbs_to_integers(limbs) == values
    assert np.array_equal(ring.reduce(Limbs(limbs)), integers_to_element(ring, values))


@given(st.lists(st.lists(st.integers(-(2**62) + 1, 2**62 - 1), min_size=2, max_size=2), min_size=1))
@PROPERTY
def test_reduce_of_any_limbs_below_2_to_62(rows: list[list[int]]) -> None:
    limbs = np.array(rows, np.int64).T.copy()
    expected = integers_to_element(tiny, limbs_to_integers(limbs))
    assert np.array_equal(tiny.reduce(Limbs(limbs)), expected)


@ALL_RINGS
@pytest.mark.parametrize("width", [16, 32])
def test_centred_digits_are_balanced_and_mean_the_same_element(
    parameters: RingParameters, width: int
) -> None:
    ring = ring_of(parameters)
    element = sample(ring, "centre")
    digits = ring.centre(element, width)
    assert np.abs(digits).max() <= (1 << (width - 1)) + parameters.subtrahend
    assert digits.shape == (32 * ring.limbs // width, ring.degree)
    total = sum(row.astype(object) << (width * i) for i, row in enumerate(digits))
    values = [int(value) % ring.modulus for value in total]
    assert values == element_to_integers(ring, element)


@ALL_RINGS
def test_from_small_takes_negative_coefficients(parameters: RingParameters) -> None:
    ring = ring_of(parameters)
    small = np.array([0, 1, -1, 41, -41, 2**61, -(2**61)])
    small = np.resize(small, ring.degree)
    expected = integers_to_element(ring, integers(small))
    assert np.array_equal(ring.from_small(Small(small)), expected)


def test_sums_leave_their_summands_alone() -> None:
    elements = [uniform(seeded(label), tiny) for label in range(3)]
    before = [element.copy() for element in elements]
    expected = [
        sum(column) for column in zip(*(limbs_to_integers(x) for x in elements), strict=True)
    ]
    assert limbs_to_integers(sum_elements(elements)) == expected
    assert all(np.array_equal(x, y) for x, y in zip(elements, before, strict=True))


# -- products ----------------------------------------------------------------------------------


@ALL_RINGS
def test_scalar_product_matches_integers(parameters: RingParameters) -> None:
    ring = ring_of(parameters)
    q, element = ring.modulus, sample(ring, "scalar")
    values = element_to_integers(ring, element)
    for scalar in (0, 1, -1, q - 1, q // 2, 12345, -(10**9), q * q + 7, (1 << parameters.bits) - 1):
        got = ring.multiply_scalar(element, scalar)
        assert np.array_equal(got, integers_to_element(ring, [scalar * v for v in values]))


@ALL_RINGS
@pytest.mark.parametrize("width", [16, 32])
def test_small_product_matches_flint(parameters: RingParameters, width: int) -> None:
    ring = ring_of(parameters)
    element = sample(ring, "small product")
    for small in (
        ternary(seeded("small"), ring.degree),
        one_time(seeded("small"), ring.degree),
        np.eye(1, ring.degree, ring.degree - 1, dtype=np.int64)[0],
    ):
        got = ring.multiply_small(ring.transform(small), ring.spectrum(element, width))
        want = product(integers(small), element_to_integers(ring, element), ring.modulus)
        assert element_to_integers(ring, got) == want


@ALL_RINGS
def test_full_product_matches_flint(parameters: RingParameters) -> None:
    ring = ring_of(parameters)
    left, right = sample(ring, "left"), sample(ring, "right")
    want = product(element_to_integers(ring, left), element_to_integers(ring, right), ring.modulus)
    assert np.array_equal(times(ring, left, right), integers_to_element(ring, want))


@ALL_RINGS
def test_products_leave_room_for_noise_before_they_are_reduced(parameters: RingParameters) -> None:
    ring = ring_of(parameters)
    spectrum = ring.spectrum(sample(ring, "room"), 32)
    limbs = ring.multiply_small(ring.transform(Small(np.ones(ring.degree, np.int64))), spectrum)
    assert np.abs(limbs).max() < 1 << 54


def schoolbook(left: list[int], right: list[int]) -> list[int]:
    """Return the negacyclic product by its definition."""
    degree, result = len(left), [0] * len(left)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            sign = 1 if i + j < degree else -1
            result[(i + j) % degree] += sign * a * b
    return result


@given(polynomial, polynomial)
@PROPERTY
def test_full_product_is_the_schoolbook_product(left: list[int], right: list[int]) -> None:
    got = times(tiny, integers_to_element(tiny, left), integers_to_element(tiny, right))
    assert np.array_equal(got, integers_to_element(tiny, schoolbook(left, right)))


@given(ternary_polynomial, polynomial, st.sampled_from([16, 32]))
@PROPERTY
def test_small_product_is_the_schoolbook_product(
    small: list[int], element: list[int], width: int
) -> None:
    spectrum = tiny.spectrum(integers_to_element(tiny, element), width)
    got = tiny.reduce(tiny.multiply_small(tiny.transform(Small(np.array(small))), spectrum))
    assert np.array_equal(got, integers_to_element(tiny, schoolbook(small, element)))


@given(polynomial, st.integers())
@PROPERTY
def test_scalar_product_is_defined_for_every_integer(element: list[int], scalar: int) -> None:
    got = tiny.multiply_scalar(integers_to_element(tiny, element), scalar)
    assert np.array_equal(got, integers_to_element(tiny, [scalar * value for value in element]))


@given(polynomial, polynomial, polynomial)
@PROPERTY
def test_the_ring_laws_hold(x: list[int], y: list[int], z: list[int]) -> None:
    a, b, c = (integers_to_element(tiny, values) for values in (x, y, z))
    one = tiny.from_small(np.eye(1, TINY.degree, dtype=np.int64)[0])
    assert np.array_equal(times(tiny, a, b), times(tiny, b, a))
    assert np.array_equal(times(tiny, times(tiny, a, b), c), times(tiny, a, times(tiny, b, c)))
    distributed = tiny.reduce(Limbs(times(tiny, a, c) + times(tiny, b, c)))
    assert np.array_equal(times(tiny, tiny.reduce(Limbs(a + b)), c), distributed)
    assert np.array_equal(times(tiny, a, one), a)
    assert not tiny.reduce(Limbs(a - a)).any()


@ALL_RINGS
def test_the_ring_laws_hold_in_the_rings_in_use(parameters: RingParameters) -> None:
    ring = ring_of(parameters)
    a, b, c = (sample(ring, label) for label in "abc")
    assert np.array_equal(times(ring, a, b), times(ring, b, a))
    assert np.array_equal(times(ring, times(ring, a, b), c), times(ring, a, times(ring, b, c)))
    distributed = ring.reduce(Limbs(times(ring, a, c) + times(ring, b, c)))
    assert np.array_equal(times(ring, ring.reduce(Limbs(a + b)), c), distributed)


@ALL_RINGS
def test_x_to_the_n_is_minus_one(parameters: RingParameters) -> None:
    ring = ring_of(parameters)
    half = ring.from_small(np.eye(1, ring.degree, ring.degree // 2, dtype=np.int64)[0])
    minus_one = ring.from_small(-np.eye(1, ring.degree, dtype=np.int64)[0])
    assert np.array_equal(times(ring, half, half), minus_one)
