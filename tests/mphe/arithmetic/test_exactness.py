"""mphe.arithmetic.ring: products are exact with the worst operands, within its bounds."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from mphe.arithmetic.noise import (
    KEY_VARIANCE,
    norm_bound,
    typical_product_error,
    worst_case_product_error,
)
from mphe.arithmetic.ring import Element, Ring, Small, digit_width
from mphe.arithmetic.rings import DATA_RING, LARGE_RING, RingParameters
from mphe.arithmetic.sampling import ternary, uniform
from mphe.errors import ParameterError
from mphe.plan.agreement import MAX_CLIENTS
from mphe.scheme.rlwe import ternary_width
from tests.mphe.support import ALL_RINGS, sample, times
from tests.support import (
    RecordingRing,
    element_to_integers,
    integers,
    integers_to_element,
    product,
    seeded,
)


def signs(kind: str, degree: int) -> Small:
    if kind == "random":
        return Small(np.where(ternary(seeded("signs"), degree) > 0, 1, -1))
    return Small(np.ones(degree, np.int64) if kind == "equal" else (-1) ** np.arange(degree))


def extreme_element(ring: Ring, width: int, kind: str, sign: int) -> Element:
    """Return the element whose centred digits all have the largest magnitude."""
    digit = (1 << (width - 1)) - 1
    value = sum(digit << (width * i) for i in range(32 * ring.limbs // width))
    return integers_to_element(ring, [sign * int(s) * value for s in signs(kind, ring.degree)])


def check_small(ring: RecordingRing, small: Small, element: Element, width: int) -> None:
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
            ring, Small(size * signs("equal", ring.degree)), extreme_element(ring, 16, kind, 1), 16
        )
    check_small(ring, Small(size * signs("alternating", ring.degree)), sample(ring, "keys"), 16)
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
