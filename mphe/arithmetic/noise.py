"""Bounds on noise and on floating-point error; plain numbers, no arrays.

Every bound here holds except with probability below 2^-128. The variables are sub-Gaussian with
a proxy equal to their variance (ternary and centred binomial ones are: their moment generating
functions lie below the Gaussian's term by term), so a sum X of them obeys
P(|X| > z·σ) ≤ 2·exp(-z²/2). `TAIL` = 16 makes that 2^-183 for one coefficient, and still below
2^-128 for all the coefficients, at most 2^50, of the longest session that `parameters` allows.
"""

from __future__ import annotations

from math import ceil, e, log, log2, sqrt

TAIL = 16.0
FAILURE_EXPONENT = 128
USES_EXPONENT = 34
"""log2 of the number of norms that the longest session checks, with room to spare."""
NORMS_EXPONENT = FAILURE_EXPONENT + USES_EXPONENT - 1
"""-log2 of the probability that ‖s‖ or ‖e‖ exceeds its bound."""

ERROR_PAIRS = 21
KEY_PAIRS = 41
TERNARY_VARIANCE = 2 / 3
ERROR_VARIANCE = ERROR_PAIRS / 2
KEY_VARIANCE = KEY_PAIRS / 2

SOUNDNESS_BITS = 128
CHALLENGE_BYTES = 32
RESPONSE_BITS = 20
"""Bits of a response z of a shortness proof, drawn from [-2^19, 2^19)."""
HIDDEN_BITS = 24
"""Low bits of a·y that a shortness proof leaves open."""
RELAXATION = 4
"""What is decrypted is 4·(c0, c1): 2·c1 and 2·b have short openings, not c1 and b."""
PROOF_RELAXATION = 2
"""The same where the server does not lie: nobody meets a corrupt c1 and a corrupt b at once."""

UNIT_ROUNDOFF = 2.0**-53

SMOOTHING = 2.2
"""η_ε(Z)/sqrt(2π) for ε = 2^-128: below this width a lattice shows through a Gaussian."""
PART_BITS = 16
MAX_PARTS = 7
MAX_PART_BITS = 24


def failure_exponent(coefficients: float) -> float:
    """Return log2 of the union bound on the noise of so many decrypted coefficients.

    Each has two sums that may exceed TAIL deviations, with 2·exp(-TAIL²/2) each: the noise of the
    aggregate and the smudging. That the norms inside of E hold is not part of it.
    """
    return log2(coefficients) + 2 - TAIL**2 / 2 * log2(e)


def norm_bound(variance: float, degree: int) -> float:
    """Return a bound on the Euclidean norm of `degree` sub-Gaussian coefficients.

    Hsu, Kakade, Zhang 2012, theorem 2.1 with Σ = I: ‖x‖² ≤ σ²·(N + 2·sqrt(N·x) + 2x) except with
    e^-x.
    """
    x = (FAILURE_EXPONENT + USES_EXPONENT) * log(2)
    return sqrt(variance * (degree + 2 * sqrt(degree * x) + 2 * x))


def aggregate_noise(degree: int, key_holders: int, contributors: int) -> float:
    """Return E, the bound on the coefficients of e·Σu + Σe0 - s·Σe1 (docs/protocol.md, A round).

    Given the keys s and e, each coefficient is a sub-Gaussian sum over the fresh u, e0 and e1.
    """
    secret = norm_bound(key_holders * TERNARY_VARIANCE, degree)
    error = norm_bound(key_holders * ERROR_VARIANCE, degree)
    variance = contributors * (
        TERNARY_VARIANCE * error**2 + ERROR_VARIANCE * secret**2 + ERROR_VARIANCE
    )
    return TAIL * sqrt(variance)


def proof_repetitions(degree: int) -> int:
    """Return R: each monomial challenge is guessed with probability 1/2N."""
    return ceil(SOUNDNESS_BITS / log2(2 * degree))


def proof_bytes(degree: int) -> int:
    """Return the length of a shortness proof: a seed, and R·N responses."""
    return CHALLENGE_BYTES + proof_repetitions(degree) * degree * RESPONSE_BITS // 8


def extracted_bounds(degree: int) -> tuple[float, float]:
    """Return bounds on the coefficients of u' and e' in 2·c1 = a·u' + e' (docs/protocol.md).

    They are products of a ternary polynomial with a difference of two responses, below 2^20, and
    of two hidden parts, below 2^24.
    """
    return degree * 2.0**RESPONSE_BITS, degree * 2.0**HIDDEN_BITS


def verified_noise(degree: int, key_holders: int, contributors: int, corrupt: int) -> float:
    """Return E for 4·(c0, c1) when `corrupt` clients know no more than their proofs show.

    4·s·c1 is public but for
    4·Σe0 + 2·(e·ũ - s·ẽ) + 2·(ẽ_C·Σu - s̃_C·Σe1): the first product by Cauchy and Schwarz, since
    whoever chose ũ and ẽ saw everything; the second is sub-Gaussian in the fresh u and e1 of the
    honest. ũ, ẽ are summed over contributors, s̃_C, ẽ_C over corrupt dealers of the key.

    Args:
        degree: N.
        key_holders: clients whose secrets make up the key.
        contributors: U at most.
        corrupt: clients that lie.
    """
    secret_bound, error_bound = extracted_bounds(degree)
    root = sqrt(degree)
    # Of the contributors that follow the protocol, 2·u and 2·e1 take the place of u' and e'.
    u_norm = corrupt * secret_bound * root + 2 * norm_bound(contributors * TERNARY_VARIANCE, degree)
    e_norm = corrupt * error_bound * root + 2 * norm_bound(contributors * ERROR_VARIANCE, degree)
    chosen = norm_bound(key_holders * ERROR_VARIANCE, degree) * u_norm
    chosen += norm_bound(key_holders * TERNARY_VARIANCE, degree) * e_norm
    variance = contributors * TERNARY_VARIANCE * degree * (corrupt * error_bound) ** 2
    variance += contributors * ERROR_VARIANCE * degree * (corrupt * secret_bound) ** 2
    fresh = TAIL * sqrt(variance)
    return 2 * (chosen + fresh) + RELAXATION * TAIL * sqrt(contributors * ERROR_VARIANCE)


def smudging_deviation(degree: int, budget: int, noise: float, kappa: int) -> float:
    """Return σ = 2^(κ/2)·sqrt(12·τ·N)·E (Li, Micciancio, Schultz, Sorrell 2022/816).

    Args:
        degree: N.
        budget: τ, the number of decrypted ciphertexts in the session.
        noise: E, the bound on the coefficients that are to be hidden.
        kappa: bits of security: the session shows a divergence of 2^-κ/24.
    """
    security: float = 2.0 ** (kappa / 2)
    return security * sqrt(12.0 * budget * degree) * noise


def smudging_widths(deviation: float) -> tuple[float, ...]:
    """Return the widths of Gaussian integers x_i with Σ (2^(16·i)·σ_i)² = σ², lowest part first.

    All but the last are wider than the next unit 2^16 by twice the smoothing factor. None exceeds
    2^24, so that a double tells at least 2^28 points apart for each integer.

    Raises:
        ValueError: σ is too small or too large.
    """
    lower = 2 * SMOOTHING * 2.0**PART_BITS
    rest = deviation**2
    widths: list[float] = []
    for part in range(MAX_PARTS):
        unit = 2.0 ** (PART_BITS * part)
        top = sqrt(rest) / unit
        if SMOOTHING < top <= 2.0**MAX_PART_BITS and part > 0:
            return (*widths, top)
        rest -= (lower * unit) ** 2
        if rest <= 0:
            break
        widths.append(lower)
    raise ValueError(f"a smudging deviation of {deviation:.3g} cannot be sampled")


def plaintext_scale(threshold: int, smudging: float, noise: float, dropped: float) -> int:
    """Return log2 Δ for the smallest power of two Δ ≥ 2·(TAIL·sqrt(t)·σ + E + dropped)."""
    return ceil(log2(2 * (TAIL * sqrt(threshold) * smudging + noise + dropped)))


def worst_case_product_error(degree: int, small_norm: float, limb_norm: float) -> float:
    """Return the proven bound on the error of a coefficient of a negacyclic product.

    Brent, Percival, Zimmermann 2007, theorem 5.1, for n = log2(N/2) stages, with the twist as
    one more multiplication by a root in each of the three transforms.

    Args:
        degree: N.
        small_norm: Euclidean norm of one operand.
        limb_norm: Euclidean norm of the other.
    """
    multiplications = 3 * (int(log2(degree)) - 1) + 4
    additions = multiplications
    roots = multiplications
    growth = (additions + multiplications * sqrt(5) + roots) * UNIT_ROUNDOFF
    return small_norm * limb_norm * growth * 1.001


def typical_product_error(degree: int, small_norm: float, limb_deviation: float) -> float:
    """Return a bound that holds when one operand is uniform from our own sampler.

    The rounding errors of the transforms are taken as independent with mean zero and at most one
    unit roundoff (relative, root mean square) a stage. The uniform operand's spectrum is flat:
    no entry exceeds TAIL·σ·sqrt(N), so the error of an output coefficient has a deviation of at
    most u·sqrt(stages)·TAIL·σ·sqrt(2)·‖small‖, whatever the other operand is.

    Args:
        degree: N.
        small_norm: Euclidean norm of the operand that may be chosen by anybody.
        limb_deviation: standard deviation σ of the uniform operand's coefficients.
    """
    stages = 3 * (int(log2(degree)) - 1) + 4
    deviation = UNIT_ROUNDOFF * sqrt(stages) * TAIL * limb_deviation * sqrt(2) * small_norm
    return TAIL * deviation
