"""mphe.arithmetic.noise: every bound against its definition and real aggregates."""

from __future__ import annotations

from itertools import pairwise
from math import cosh, exp, log, log2, sqrt

import numpy as np
import pytest

from mphe.arithmetic import noise
from mphe.arithmetic.noise import (
    ERROR_PAIRS,
    ERROR_VARIANCE,
    KEY_PAIRS,
    KEY_VARIANCE,
    TAIL,
    TERNARY_VARIANCE,
    aggregate_noise,
    norm_bound,
    plaintext_scale,
    smudging_deviation,
)
from mphe.arithmetic.ring import Element, Ring, Small
from mphe.arithmetic.rings import DATA_RING, KEY_RING, RingParameters
from mphe.arithmetic.sampling import centred_binomial, ternary
from mphe.scheme.decryption import Request, aggregate_shares, gen_share, read_blocks
from mphe.scheme.rlwe import CollectiveKey, common_reference
from mphe.scheme.rlwe import aggregate_shares as add_key_shares
from mphe.scheme.rlwe import gen_share as gen_key_share
from tests.support import (
    centred,
    element_to_integers,
    integers,
    limbs_to_integers,
    make_parameters,
    make_session,
    product,
    seed_of,
    seeded,
)

GRID = [step / 50 for step in range(1, 1000)]


# -- the distributions are sub-Gaussian -------------------------------------------------------


def test_ternary_is_sub_gaussian_with_its_variance_as_proxy() -> None:
    for x in GRID:
        assert (1 + 2 * cosh(x)) / 3 <= exp(x * x * TERNARY_VARIANCE / 2)


@pytest.mark.parametrize(
    ("pairs", "variance"), [(ERROR_PAIRS, ERROR_VARIANCE), (KEY_PAIRS, KEY_VARIANCE)]
)
def test_centred_binomial_is_sub_gaussian_with_its_variance_as_proxy(
    pairs: int, variance: float
) -> None:
    for x in GRID:
        assert pairs * log((1 + cosh(x)) / 2) <= x * x * variance / 2


def test_no_smaller_proxy_would_do() -> None:
    x = 0.01
    assert (1 + 2 * cosh(x)) / 3 > exp(x * x * 0.999 * TERNARY_VARIANCE / 2)
    assert KEY_PAIRS * log((1 + cosh(x)) / 2) > x * x * 0.999 * KEY_VARIANCE / 2
    assert ERROR_PAIRS * log((1 + cosh(x)) / 2) > x * x * 0.999 * ERROR_VARIANCE / 2


def test_the_tail_leaves_2_to_minus_128_for_all_coefficients_of_a_session() -> None:
    one_coefficient = 1 - TAIL**2 / 2 / log(2)
    assert one_coefficient < -161
    assert one_coefficient + 33 < -128


# -- norms ------------------------------------------------------------------------------------


def chi_square_norm_tail(variance: float, degree: int, bound: float) -> float:
    """Return log2 of Chernoff's bound on P(‖x‖ > bound) for N Gaussians."""
    ratio = bound**2 / (variance * degree)
    assert ratio > 1
    return -degree / 2 * (ratio - 1 - log(ratio)) / log(2)


@pytest.mark.parametrize("degree", [4096, 8192, 16384])
def test_norm_bound_fails_with_probability_below_2_to_minus_128(degree: int) -> None:
    bound = norm_bound(1.0, degree)
    assert chi_square_norm_tail(1.0, degree, bound) < -128 - 34
    # Not needlessly large either.
    assert chi_square_norm_tail(1.0, degree, bound) > -185
    assert norm_bound(9.0, degree) == pytest.approx(3 * bound)


@pytest.mark.parametrize("degree", [4096, 8192, 16384])
def test_no_sample_exceeds_the_norm_bound(degree: int) -> None:
    for label in range(20):
        source = seeded(label)
        for sample, variance in (
            (ternary(source, degree), TERNARY_VARIANCE),
            (centred_binomial(source, degree, ERROR_PAIRS), ERROR_VARIANCE),
            (centred_binomial(source, degree, KEY_PAIRS), KEY_VARIANCE),
        ):
            norm = sqrt(sum(value * value for value in integers(sample)))
            assert norm < norm_bound(variance, degree) < 1.25 * norm


# -- formulas ---------------------------------------------------------------------------------


def test_smudging_deviation_is_the_formula_of_the_design() -> None:
    expected = 2**32 * sqrt(12 * 5000 * 4096) * 1e6
    assert smudging_deviation(4096, 5000, 1e6, 64) == pytest.approx(expected, rel=1e-12)


def test_plaintext_scale_is_the_smallest_power_of_two_that_suffices() -> None:
    for threshold, smudging in ((2, 2.0**60), (4, 3.3e18), (500, 7.7e19)):
        scale = plaintext_scale(threshold, smudging, 1e6, 4 * smudging)
        needed = 2 * (15 * sqrt(threshold) * smudging + 1e6 + 4 * smudging)
        assert 2.0 ** (scale - 1) < needed <= 2.0**scale


def test_more_keys_contributors_and_coefficients_mean_more_noise() -> None:
    sizes = [(4096, 2, 2), (4096, 3, 2), (4096, 3, 3), (8192, 3, 3)]
    assert all(aggregate_noise(*a) < aggregate_noise(*b) for a, b in pairwise(sizes))


def test_product_errors_grow_with_each_operand() -> None:
    for bound in (noise.worst_case_product_error, noise.typical_product_error):
        assert bound(4096, 1e3, 1e9) < bound(8192, 1e3, 1e9)
        assert bound(4096, 2e3, 1e9) == pytest.approx(2 * bound(4096, 1e3, 1e9))
        assert bound(4096, 1e3, 2e9) == pytest.approx(2 * bound(4096, 1e3, 1e9))


# -- liars ------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [4096, 8192, 16384])
def test_a_false_proof_is_guessed_with_probability_2_to_minus_128(degree: int) -> None:
    repetitions = noise.proof_repetitions(degree)
    assert (2 * degree) ** repetitions >= 2**128 > (2 * degree) ** (repetitions - 1)
    assert noise.proof_bytes(degree) == 32 + repetitions * degree * 20 // 8


@pytest.mark.parametrize("degree", [4096, 8192, 16384])
def test_extracted_openings_are_products_with_a_ternary_polynomial(degree: int) -> None:
    # Differences of two z in [-2^19, 2^19) and of two low parts in [0, 2^24); N terms each.
    assert noise.extracted_bounds(degree) == (degree * 2**20, degree * 2**24)


def test_liars_make_more_noise_the_more_they_are() -> None:
    sizes = [(8192, 8, 8, 0), (8192, 8, 8, 1), (8192, 8, 8, 2), (8192, 9, 8, 2), (8192, 9, 9, 2)]
    sizes.append((16384, 9, 9, 2))
    assert all(noise.verified_noise(*a) < noise.verified_noise(*b) for a, b in pairwise(sizes))


def test_the_noise_of_liars_covers_the_worst_that_they_can_choose() -> None:
    """Cauchy and Schwarz is met with equality by whoever knows e and s."""
    degree, holders, contributors, corrupt = 8192, 8, 8, 2
    bound_u, bound_e = noise.extracted_bounds(degree)
    source = seeded("liars")
    secret = sum(ternary(source, degree) for _ in range(holders))
    error = sum(centred_binomial(source, degree, ERROR_PAIRS) for _ in range(holders))
    # One coefficient of 2·(e·u' - s·e') when all of u', e' have its signs: the l1 norms.
    chosen = corrupt * (bound_u * np.abs(error).sum() + bound_e * np.abs(secret).sum())
    noise_bound = noise.verified_noise(degree, holders, contributors, corrupt)
    print(f"chosen 2^{log2(2 * chosen):.2f}, E 2^{log2(noise_bound):.2f}")
    assert 2 * chosen < noise_bound < 2 * 2 * chosen


def test_with_nobody_corrupt_the_noise_is_that_of_the_protocol_times_four() -> None:
    degree, holders, contributors = 8192, 8, 8
    norms = [
        noise.norm_bound(holders * ERROR_VARIANCE, degree)
        * noise.norm_bound(contributors * TERNARY_VARIANCE, degree),
        noise.norm_bound(holders * TERNARY_VARIANCE, degree)
        * noise.norm_bound(contributors * ERROR_VARIANCE, degree),
    ]
    fresh = TAIL * sqrt(contributors * ERROR_VARIANCE)
    expected = 4 * (sum(norms) + fresh)
    assert noise.verified_noise(degree, holders, contributors, 0) == pytest.approx(expected)


# -- measured ---------------------------------------------------------------------------------


def deviation(values: list[int]) -> float:
    """Return the root mean square of integers of any size."""
    return sqrt(sum(value * value for value in values) / len(values))


def opened(ring: Ring, secret: Small, c0: Element, c1: Element) -> list[int]:
    """Return c0 - s·c1 around zero, by FLINT."""
    q = ring.modulus
    hidden = product(integers(secret), element_to_integers(ring, c1), q)
    return centred((x - y for x, y in zip(element_to_integers(ring, c0), hidden, strict=True)), q)


@pytest.mark.parametrize("parameters", [KEY_RING, DATA_RING], ids=lambda ring: ring.name)
def test_measured_noise_of_an_aggregate_agrees_with_the_bound(parameters: RingParameters) -> None:
    ring, source = Ring(parameters), seeded("aggregate noise")
    holders, contributors = 5, 7
    reference = common_reference(ring, bytes(32))
    shares = [gen_key_share(ring, reference, source) for _ in range(holders)]
    key = CollectiveKey(ring, reference, add_key_shares(ring, [share.public for share in shares]))
    ciphertexts = [key.encrypt(ring.zero(), source) for _ in range(contributors)]
    c0 = ring.reduce(np.sum([c.c0 for c in ciphertexts], axis=0))
    c1 = ring.reduce(np.sum([c.c1 for c in ciphertexts], axis=0))
    secret = np.sum([share.secret for share in shares], axis=0)
    values = opened(ring, secret, c0, c1)
    degree = ring.degree
    # ‖s‖² = n·N·2/3 and ‖e‖² = n·N·21/2 on average.
    predicted = sqrt(
        contributors
        * (
            TERNARY_VARIANCE * holders * degree * ERROR_VARIANCE
            + ERROR_VARIANCE * holders * degree * TERNARY_VARIANCE
            + ERROR_VARIANCE
        )
    )
    measured, largest = deviation(values), max(map(abs, values))
    bound = aggregate_noise(degree, holders, contributors)
    print(
        f"{parameters.name}: noise {measured:.1f}, predicted {predicted:.1f}, "
        f"largest {largest}, E {bound:.0f}"
    )
    assert 0.94 < measured / predicted < 1.06
    # E holds TAIL deviations and the slack of the two norms, and nothing else.
    assert 1.0 < bound / TAIL / measured < 1.3
    assert largest < bound / 2


@pytest.mark.parametrize(("encryption", "threshold"), [("hybrid", 2), ("hybrid", 5), ("direct", 3)])
def test_measured_noise_of_a_decryption_is_the_predicted_smudging(
    encryption: str, threshold: int
) -> None:
    parameters = make_parameters(5, threshold, 40000, encryption=encryption)
    session = make_session(parameters, f"{encryption} {threshold}")
    plan, ring, layout = session.plan, session.ring, session.plan.threshold_layout(1)
    assert layout.blocks == 1
    ciphertext = session.key.encrypt(ring.zero(), seeded("zero"))
    active = tuple(range(1, threshold + 1))
    request = Request(session.transcript, 1, 1, active, ring.to_bytes(ciphertext.c1))
    answers = []
    for j in active:
        data = gen_share(
            plan,
            ring,
            session.scaled(j, active, plan),
            request,
            session.signed_mask_keys(j, active),
            seed_of(f"smudging {j}"),
        )
        answers.append(read_blocks(ring, layout, data, plan.dropped_share))
    used = layout.coefficients
    total = ciphertext.c0[:, :used] - aggregate_shares(answers)[0]
    values = centred(limbs_to_integers(total), ring.modulus)
    rounding = threshold * 2.0 ** (16 * plan.dropped_share) / 12
    predicted = sqrt(threshold * plan.smudging**2 + rounding)
    measured = deviation(values)
    ratio = measured / predicted
    print(f"{encryption}, t = {threshold}: deviation 2^{log2(measured):.3f}, ratio {ratio:.4f}")
    assert abs(ratio - 1) < 5 / sqrt(2 * used)
    assert max(map(abs, values)) < 2.0 ** (layout.noise_bits - 1)
    # What is hidden is far below what hides it.
    assert plan.smudging > 2**32 * plan.noise
