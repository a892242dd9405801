"""mphe.scheme.sharing: any t shares give the secret, t - 1 give nothing; or all are needed."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mphe.arithmetic.ring import Element, Limbs, Ring, Small
from mphe.arithmetic.rings import KEY_RING, RINGS, RingParameters
from mphe.arithmetic.sampling import ternary, uniform
from mphe.errors import ParameterError
from mphe.plan.agreement import SessionParameters
from mphe.scheme.sharing import (
    AdditiveSharing,
    ShamirSharing,
    aggregate_shares,
    gen_shares,
    lagrange_coefficient,
    reconstruct,
    sharing_of,
)
from tests.support import (
    TINY,
    element_to_integers,
    integers_to_element,
    make_parameters,
    seeded,
    uniform_deviation,
)

PROPERTY = settings(deadline=None, max_examples=60, derandomize=True)
Q = KEY_RING.modulus
tiny = Ring(TINY)
SHAMIR = ShamirSharing(tiny, make_parameters(6, 4))

active_sets = st.lists(st.integers(1, 1 << 12), min_size=1, max_size=12, unique=True)


def lagrange_fraction(index: int, active: list[int]) -> Fraction:
    """Return Π l / (l - j) as a rational number."""
    result = Fraction(1)
    for other in active:
        if other != index:
            result *= Fraction(other, other - index)
    return result


def interpolate(points: list[tuple[int, int]], modulus: int) -> list[int]:
    """Return the coefficients of the polynomial through the points, by Gaussian elimination."""
    rows = [[pow(x, k, modulus) for k in range(len(points))] + [y] for x, y in points]
    size = len(rows)
    for column in range(size):
        pivot = next(r for r in range(column, size) if rows[r][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        inverse = pow(rows[column][column], -1, modulus)
        rows[column] = [value * inverse % modulus for value in rows[column]]
        for r in range(size):
            if r != column:
                factor = rows[r][column]
                rows[r] = [
                    (a - factor * b) % modulus for a, b in zip(rows[r], rows[column], strict=True)
                ]
    return [row[-1] for row in rows]


def deal(secret: Element, threshold: int, points: list[int], label: str) -> dict[int, Element]:
    return gen_shares(tiny, secret, threshold, points, seeded(label))


@pytest.mark.parametrize("parameters", RINGS, ids=lambda ring: ring.name)
def test_shares_lie_on_one_polynomial_of_degree_t_minus_1(parameters: RingParameters) -> None:
    ring = Ring(parameters)
    secret = ring.from_small(ternary(seeded("secret"), ring.degree))
    points = [1, 2, 3, 4, 4096]
    shares = gen_shares(ring, secret, 3, points, seeded("deal"))
    values = {j: element_to_integers(ring, share)[:5] for j, share in shares.items()}
    for k, expected in enumerate(element_to_integers(ring, secret)[:5]):
        polynomial = interpolate([(j, values[j][k]) for j in points], ring.modulus)
        assert polynomial[0] == expected
        assert polynomial[2] != 0
        assert polynomial[3:] == [0, 0]


def test_any_t_of_n_reconstruct_and_so_do_more() -> None:
    secret, points = uniform(seeded("secret"), tiny), [1, 2, 3, 4, 5, 6]
    shares = deal(secret, 4, points, "any t")
    for size in (4, 5, 6):
        for active in combinations(points, size):
            assert np.array_equal(reconstruct(SHAMIR, {j: shares[j] for j in active}), secret)


def test_t_minus_1_shares_do_not_reconstruct() -> None:
    secret, points = tiny.from_small(Small(np.ones(16, np.int64))), [1, 2, 3, 4]
    shares = deal(secret, 3, points, "too few")
    for active in combinations(points, 2):
        got = reconstruct(SHAMIR, {j: shares[j] for j in active})
        assert not (got == secret).all(axis=0).any()


def test_t_minus_1_shares_fit_every_secret_with_exactly_one_polynomial() -> None:
    shares = deal(uniform(seeded("hidden"), tiny), 3, [1, 2, 3], "every secret")
    q = tiny.modulus
    seen = [(j, element_to_integers(tiny, shares[j])[0]) for j in (1, 3)]
    polynomials = set()
    for candidate in (0, 1, q - 1, 12345, element_to_integers(tiny, shares[2])[0]):
        # t points determine one polynomial of degree t - 1; it exists for every candidate.
        polynomial = interpolate([(0, candidate), *seen], q)
        for x, y in [(0, candidate), *seen]:
            assert sum(a * x**k for k, a in enumerate(polynomial)) % q == y
        polynomials.add(tuple(polynomial))
    assert len(polynomials) == 5


def test_one_share_of_zero_is_uniform() -> None:
    ring = Ring(KEY_RING)
    share = gen_shares(ring, ring.zero(), 2, [5], seeded("zero"))[5]
    for limb in share:
        for shift in (0, 8, 16, 24):
            assert abs(uniform_deviation(limb >> shift & 0xFF, 256)) < 5


def test_coefficients_of_the_polynomial_are_uniform_and_not_small() -> None:
    # A small A_1 would give s + j·A_1 away: f(2) - f(1) must not be short.
    ring = Ring(KEY_RING)
    shares = gen_shares(ring, ring.zero(), 2, [1, 2], seeded("coefficients"))
    difference = ring.reduce(Limbs(shares[2] - shares[1]))
    assert abs(uniform_deviation(difference[-1] >> 24, 256)) < 5


def test_dealing_twice_gives_different_shares() -> None:
    source = seeded("twice")
    first, second = (gen_shares(tiny, tiny.zero(), 2, [1], source)[1] for _ in range(2))
    assert not np.array_equal(first, second)


def test_the_sum_of_shares_is_a_share_of_the_sum() -> None:
    secrets = [uniform(seeded(label), tiny) for label in "abc"]
    dealt = [deal(secret, 2, [1, 2, 3], f"sum {i}") for i, secret in enumerate(secrets)]
    summed = {j: aggregate_shares(tiny, [shares[j] for shares in dealt]) for j in (1, 3)}
    expected = [
        sum(values) for values in zip(*(element_to_integers(tiny, s) for s in secrets), strict=True)
    ]
    assert np.array_equal(reconstruct(SHAMIR, summed), integers_to_element(tiny, expected))


@given(active_sets, st.data())
@PROPERTY
def test_lagrange_coefficients_match_fractions(active: list[int], data: st.DataObject) -> None:
    index = data.draw(st.sampled_from(active))
    fraction = lagrange_fraction(index, active)
    expected = fraction.numerator * pow(fraction.denominator, -1, Q) % Q
    assert lagrange_coefficient(Q, index, active) == expected


@given(active_sets)
@PROPERTY
def test_lagrange_coefficients_sum_to_one(active: list[int]) -> None:
    # The constant polynomial 1 has shares 1.
    assert sum(lagrange_coefficient(Q, index, active) for index in active) % Q == 1


@pytest.mark.parametrize(
    ("index", "active"), [(1, (1, 1, 2)), (1, (1, 2, 2)), (3, (1, 2)), (1, ())]
)
def test_an_active_set_that_is_none_is_refused(index: int, active: tuple[int, ...]) -> None:
    with pytest.raises(ParameterError, match="not a set that contains"):
        lagrange_coefficient(Q, index, active)


@pytest.mark.parametrize("point", [0, -1, 1 << 20])
def test_a_point_that_is_no_index_is_refused(point: int) -> None:
    # f(0) is the secret itself.
    with pytest.raises(ParameterError, match="not a client's index"):
        deal(tiny.zero(), 2, [1, point], "points")


# -- the two schemes ---------------------------------------------------------------------------

COMMITTEE = SessionParameters(6, 3, 10, 1, decryptors=4, min_contributors=5)
ALL = SessionParameters(4, 4, 10, 1, robust=False, min_contributors=2)
MEMBERS = {COMMITTEE: [1, 3, 4, 5, 6], ALL: [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("parameters", "kind"), [(COMMITTEE, ShamirSharing), (ALL, AdditiveSharing)]
)
def test_the_scheme_follows_from_the_parameters(parameters: SessionParameters, kind: type) -> None:
    assert type(sharing_of(parameters, tiny)) is kind


@pytest.mark.parametrize("parameters", [COMMITTEE, ALL])
def test_what_holders_get_adds_up_to_all_secrets(parameters: SessionParameters) -> None:
    scheme, members = sharing_of(parameters, tiny), MEMBERS[parameters]
    secrets = {i: uniform(seeded(f"secret {i}"), tiny) for i in members}
    dealt = {i: scheme.deal(i, secrets[i], members, seeded(f"deal {i}")) for i in members}
    shares = {}
    for holder in scheme.holders(members):
        dealers = scheme.dealers(holder, members)
        shares[holder] = scheme.aggregate(
            [dealt[i][holder] for i in (holder, *dealers) if holder in dealt[i]]
        )
    expected = [
        sum(values) % tiny.modulus
        for values in zip(*(element_to_integers(tiny, s) for s in secrets.values()), strict=True)
    ]
    assert element_to_integers(tiny, reconstruct(scheme, shares)) == expected
    assert len(shares) == parameters.threshold


@pytest.mark.parametrize("parameters", [COMMITTEE, ALL])
def test_each_dealer_deals_to_exactly_those_who_expect_it(parameters: SessionParameters) -> None:
    scheme, members = sharing_of(parameters, tiny), list(range(1, parameters.num_clients + 1))
    for dealer in members:
        receivers = scheme.receivers(dealer, members)
        assert receivers == [i for i in members if dealer in scheme.dealers(i, members)]
        own = {dealer} & set(scheme.holders(members))
        dealt = scheme.deal(dealer, tiny.zero(), members, seeded("deal"))
        assert set(dealt) == ({*receivers, *own} if scheme.deals else own)


def test_a_key_needs_a_quorum_with_shamir_and_everybody_without() -> None:
    assert sharing_of(COMMITTEE, tiny).min_members == 5
    assert sharing_of(ALL, tiny).min_members == 4
    assert sharing_of(COMMITTEE, tiny).holders([6, 5, 4, 1]) == [4, 1]
    assert sharing_of(ALL, tiny).holders([1, 2, 4]) == [1, 2, 4]


@pytest.mark.parametrize("active", [(), (2, 3), (1, 1, 2), (0, 1)])
def test_both_schemes_refuse_an_active_set_that_is_none(active: tuple[int, ...]) -> None:
    for parameters in (COMMITTEE, ALL):
        with pytest.raises(ParameterError, match="not a set that contains 1"):
            sharing_of(parameters, tiny).additive_share(tiny.zero(), 1, active)
