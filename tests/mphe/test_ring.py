"""mphe.ring: exact arithmetic and the wire form, against Python integers and FLINT."""

from __future__ import annotations

from functools import cache
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import isprime

from mphe.errors import EncodingError, ParameterError
from mphe.noise import (
    KEY_VARIANCE,
    norm_bound,
    typical_product_error,
    worst_case_product_error,
)
from mphe.parameters import MAX_CLIENTS
from mphe.ring import Limbs, Ring, Small, digit_width, sum_elements
from mphe.rings import DATA_RING, KEY_RING, LARGE_RING, RINGS, RingParameters
from mphe.rlwe import ternary_width
from mphe.sampling import one_time, ternary, uniform
from tests.support import (
    TINY,
    RecordingRing,
    centred,
    element_to_integers,
    integers,
    integers_to_element,
    limbs_to_integers,
    product,
    seeded,
)

ALL_RINGS = pytest.mark.parametrize("parameters", RINGS, ids=lambda ring: ring.name)
PROPERTY = settings(deadline=None, max_examples=60, derandomize=True)

tiny = Ring(TINY)
extreme = st.sampled_from([0, 1, 2, 58, 59, 1 << 31, (1 << 32) - 1, 1 << 32, TINY.modulus // 2])
coefficient = st.one_of(
    st.integers(0, TINY.modulus - 1), extreme, extreme.map(lambda value: TINY.modulus - 1 - value)
)
polynomial = st.lists(coefficient, min_size=TINY.degree, max_size=TINY.degree)
ternary_polynomial = st.lists(st.integers(-1, 1), min_size=TINY.degree, max_size=TINY.degree)


@cache
def ring_of(parameters: RingParameters) -> Ring:
    return Ring(parameters)


def sample(ring: Ring, label: str) -> Limbs:
    """Return a uniform element whose first coefficients are the extremes of [0, q)."""
    element = uniform(seeded(label), ring)
    edges = [0, 1, ring.modulus - 1, ring.modulus - 2, ring.modulus // 2, ring.modulus // 2 + 1]
    element[:, : len(edges)] = integers_to_element(ring, edges)
    return element


def times(ring: Ring, left: Limbs, right: Limbs) -> Limbs:
    return ring.reduce(ring.multiply(ring.spectrum(left, 16), ring.spectrum(right, 16)))


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
    assert np.array_equal(ring.reduce(limbs), integers_to_element(ring, expected))


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
    assert np.array_equal(ring.reduce(limbs), integers_to_element(ring, values))


@given(st.lists(st.lists(st.integers(-(2**62) + 1, 2**62 - 1), min_size=2, max_size=2), min_size=1))
@PROPERTY
def test_reduce_of_any_limbs_below_2_to_62(rows: list[list[int]]) -> None:
    limbs = np.array(rows, np.int64).T.copy()
    expected = integers_to_element(tiny, limbs_to_integers(limbs))
    assert np.array_equal(tiny.reduce(limbs), expected)


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
    assert np.array_equal(ring.from_small(small), expected)


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
    limbs = ring.multiply_small(ring.transform(np.ones(ring.degree, np.int64)), spectrum)
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
    got = tiny.reduce(tiny.multiply_small(tiny.transform(np.array(small)), spectrum))
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
    distributed = tiny.reduce(times(tiny, a, c) + times(tiny, b, c))
    assert np.array_equal(times(tiny, tiny.reduce(a + b), c), distributed)
    assert np.array_equal(times(tiny, a, one), a)
    assert not tiny.reduce(a - a).any()


@ALL_RINGS
def test_the_ring_laws_hold_in_the_rings_in_use(parameters: RingParameters) -> None:
    ring = ring_of(parameters)
    a, b, c = (sample(ring, label) for label in "abc")
    assert np.array_equal(times(ring, a, b), times(ring, b, a))
    assert np.array_equal(times(ring, times(ring, a, b), c), times(ring, a, times(ring, b, c)))
    distributed = ring.reduce(times(ring, a, c) + times(ring, b, c))
    assert np.array_equal(times(ring, ring.reduce(a + b), c), distributed)


@ALL_RINGS
def test_x_to_the_n_is_minus_one(parameters: RingParameters) -> None:
    ring = ring_of(parameters)
    half = ring.from_small(np.eye(1, ring.degree, ring.degree // 2, dtype=np.int64)[0])
    minus_one = ring.from_small(-np.eye(1, ring.degree, dtype=np.int64)[0])
    assert np.array_equal(times(ring, half, half), minus_one)


# -- exactness with the worst operands ---------------------------------------------------------


def signs(kind: str, degree: int) -> Small:
    if kind == "random":
        return np.where(ternary(seeded("signs"), degree) > 0, 1, -1)
    return np.ones(degree, np.int64) if kind == "equal" else (-1) ** np.arange(degree)


def extreme_element(ring: Ring, width: int, kind: str, sign: int) -> Limbs:
    """Return the element whose centred digits all have the largest magnitude."""
    digit = (1 << (width - 1)) - 1
    value = sum(digit << (width * i) for i in range(32 * ring.limbs // width))
    return integers_to_element(ring, [sign * int(s) * value for s in signs(kind, ring.degree)])


def check_small(ring: RecordingRing, small: Small, element: Limbs, width: int) -> None:
    got = ring.multiply_small(ring.transform(small), ring.spectrum(element, width))
    want = product(integers(small), element_to_integers(ring, element), ring.modulus)
    assert element_to_integers(ring, got) == want


@ALL_RINGS
def test_worst_ternary_products_are_exact(parameters: RingParameters) -> None:
    ring = RecordingRing(parameters)
    norm, width = sqrt(ring.degree), ternary_width(ring)
    assert width == 32
    for kind in ("equal", "alternating", "random"):
        element = extreme_element(ring, width, kind, -1)
        for ones in ("equal", "alternating"):
            check_small(ring, signs(ones, ring.degree), element, width)
    bound = worst_case_product_error(ring.degree, norm, norm * 2**31)
    print(f"{parameters.name}: ternary x 32-bit: {ring.distance:.5f}, worst case {bound:.5f}")
    assert ring.distance < min(bound, 0.25)


@ALL_RINGS
def test_ternary_times_uniform_stays_below_the_typical_bound(parameters: RingParameters) -> None:
    ring = RecordingRing(parameters)
    for kind in ("equal", "alternating"):
        check_small(ring, signs(kind, ring.degree), sample(ring, kind), 32)
    bound = typical_product_error(ring.degree, sqrt(ring.degree), 2**31 / sqrt(3))
    print(f"{parameters.name}: ternary x uniform: {ring.distance:.5f}, typical {bound:.5f}")
    assert 0 < ring.distance < bound < 0.5


@pytest.mark.parametrize("parameters", [DATA_RING, LARGE_RING], ids=lambda ring: ring.name)
def test_sum_of_all_keys_at_its_bound_times_16_bit_digits_is_exact(
    parameters: RingParameters,
) -> None:
    ring = RecordingRing(parameters)
    norm = norm_bound(MAX_CLIENTS * KEY_VARIANCE, ring.degree)
    assert digit_width(ring.degree, norm) == 16
    size = int(norm / sqrt(ring.degree))
    for kind in ("equal", "alternating"):
        check_small(
            ring, size * signs("equal", ring.degree), extreme_element(ring, 16, kind, 1), 16
        )
    check_small(ring, size * signs("alternating", ring.degree), sample(ring, "keys"), 16)
    bound = worst_case_product_error(ring.degree, norm, sqrt(ring.degree) * 2**15)
    print(f"{parameters.name}: key sum x 16-bit: {ring.distance:.6f}, worst case {bound:.6f}")
    assert 0 < ring.distance < bound < 0.5


@ALL_RINGS
def test_worst_full_products_are_exact(parameters: RingParameters) -> None:
    ring = RecordingRing(parameters)
    for kind in ("equal", "alternating", "random"):
        left = extreme_element(ring, 16, kind, 1)
        right = extreme_element(ring, 16, kind, -1)
        a, b = element_to_integers(ring, left), element_to_integers(ring, right)
        assert np.array_equal(
            times(ring, left, right), integers_to_element(ring, product(a, b, ring.modulus))
        )
    norm = sqrt(ring.degree) * 2**15
    bound = 2 * ring.limbs * worst_case_product_error(ring.degree, norm, norm)
    print(f"{parameters.name}: extreme x extreme: {ring.distance:.5f}, worst case {bound:.5f}")
    assert ring.distance < min(bound, 0.45)


@ALL_RINGS
def test_a_share_times_a_chosen_c1_stays_below_the_typical_bound(
    parameters: RingParameters,
) -> None:
    # The share is uniform; the server may choose c1.
    ring = RecordingRing(parameters)
    share = uniform(seeded("share"), ring)
    for kind in ("equal", "alternating"):
        chosen = extreme_element(ring, 16, kind, -1)
        a, b = element_to_integers(ring, share), element_to_integers(ring, chosen)
        want = integers_to_element(ring, product(a, b, ring.modulus))
        assert np.array_equal(times(ring, share, chosen), want)
    norm = sqrt(2 * ring.limbs * ring.degree) * 2**15
    bound = typical_product_error(ring.degree, norm, 2**15 / sqrt(3))
    print(f"{parameters.name}: share x extreme c1: {ring.distance:.5f}, typical {bound:.5f}")
    assert 0 < ring.distance < bound < 0.5


def test_digit_width_narrows_as_the_operand_grows_and_then_refuses() -> None:
    assert digit_width(8192, sqrt(8192)) == 32
    assert digit_width(8192, sqrt(8192) * 100) == 16
    with pytest.raises(ParameterError, match="not exact"):
        digit_width(8192, 2.0**40)


def test_a_ring_too_large_for_exact_full_products_is_refused() -> None:
    with pytest.raises(ParameterError, match="not exact"):
        Ring(RingParameters("huge", 1 << 18, 64, 1))


def test_sums_leave_their_summands_alone() -> None:
    elements = [uniform(seeded(label), tiny) for label in range(3)]
    before = [element.copy() for element in elements]
    expected = [
        sum(column) for column in zip(*(limbs_to_integers(x) for x in elements), strict=True)
    ]
    assert limbs_to_integers(sum_elements(elements)) == expected
    assert all(np.array_equal(x, y) for x, y in zip(elements, before, strict=True))


# -- on the wire -------------------------------------------------------------------------------


@ALL_RINGS
@pytest.mark.parametrize("coefficients", [1, 7, 4096])
def test_whole_elements_come_back_from_bytes(parameters: RingParameters, coefficients: int) -> None:
    ring = ring_of(parameters)
    element = sample(ring, "wire")[:, :coefficients]
    data = ring.to_bytes(element)
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
    data = ring.to_bytes(sample(ring, "length")[:, 8:16], dropped)
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
