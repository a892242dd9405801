"""Who convinces a verifier knows short u' and e': false witnesses fail, two answers extract."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import flint
import numpy as np
import pytest

from mphe.arithmetic.noise import extracted_bounds, proof_repetitions
from mphe.arithmetic.ring import Element, Small
from mphe.arithmetic.rings import DATA_RING, RINGS, RingParameters
from mphe.arithmetic.sampling import ternary, uniform
from mphe.errors import EncodingError
from mphe.scheme import proof
from mphe.scheme.proof import GAMMA, challenge_exponents
from mphe.scheme.rlwe import Opening
from tests.mphe.proving import (
    CONTEXT,
    HIDDEN,
    LIMIT,
    commitment,
    element_of,
    made,
    negacyclic,
    prover_of,
    reference_of,
    refused,
    responses_of,
)
from tests.mphe.support import ALL_RINGS, ring_of
from tests.simulation import SeededSource
from tests.support import (
    TINY,
    centred,
    element_to_integers,
    integers,
    product,
    seeded,
)

# -- false witnesses -------------------------------------------------------------------------------


def pack_what_fits(values: Small, pack: Callable[[Small], bytes] = proof._pack) -> bytes:
    return pack(Small(values & (2 * GAMMA - 1)))


def attempt(
    u: list[int], e: list[int], monkeypatch: pytest.MonkeyPatch, tries: int = 20
) -> list[str]:
    """Return what the verifier says to honest prover code that rejects nothing: "" is taken.

    Responses beyond 20 bits are cut off, since more do not fit the wire.
    """
    prover, element = prover_of(TINY), element_of(TINY, u, e)
    opening, said = Opening(Small(np.array(u)), Small(np.array(e))), []
    for number in range(tries):
        with monkeypatch.context() as insecure:
            insecure.setattr(proof, "_within", lambda *_: True)
            insecure.setattr(proof, "_pack", pack_what_fits)
            data = prover.prove(element, opening, CONTEXT, seeded(f"false {number}"))
        try:
            prover.verify(element, CONTEXT, data)
            said.append("")
        except EncodingError as refusal:
            said.append(str(refusal))
    return said


def one_large(value: int) -> list[int]:
    return [0] * 5 + [value] + [0] * (TINY.degree - 6)


def test_honest_witnesses_pass_the_same_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    said = attempt([1, -1] * 8, [21, -21] * 8, monkeypatch)
    assert said.count("") > 15


@pytest.mark.parametrize("value", [2**20, -(2**20), 2**21, 2**40])
def test_a_prover_with_a_large_secret_convinces_nobody(
    value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    u = [x + y for x, y in zip(one_large(value), [1, -1] * 8, strict=True)]
    assert "" not in attempt(u, [3] * TINY.degree, monkeypatch)


@pytest.mark.parametrize("value", [2**24 + 22, -(2**24) - 22, HIDDEN * 16, 2**40, 2**63])
def test_an_element_with_a_large_error_convinces_nobody(
    value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prover, u = prover_of(TINY), [1, -1] * 8
    # The short part of the witness is true, the element lies off by `value` in one coefficient.
    element = element_of(TINY, u, one_large(value))
    opening = Opening(Small(np.array(u)), Small(np.zeros(TINY.degree, np.int64)))
    for number in range(20):
        data = prover.prove(element, opening, CONTEXT, seeded(f"false {number}"))
        assert "does not fit" in refused(prover, element, CONTEXT, data)
    if abs(value) < 2**62:
        assert "" not in attempt(u, one_large(value), monkeypatch)


@pytest.mark.parametrize("value", [2**20 - 1, 2**20, 2**30])
def test_no_mask_hides_a_large_secret(value: int) -> None:
    # The mask that goes farthest the other way is not enough; a smaller one even less.
    for z, less in ((value - GAMMA, value - 1 - GAMMA), (GAMMA - 1 - value, GAMMA - value)):
        assert not proof._within(np.array([z]), GAMMA, 1)
        assert proof._within(np.array([less]), GAMMA, 1) == (value == 2**20 - 1)


def test_a_proof_shows_the_extracted_bounds_and_not_more() -> None:
    """Why noise counts with N·2^20: whoever is patient has a proof for a coefficient of 2^18."""
    degree, large = DATA_RING.degree, 2**18
    assert large < extracted_bounds(degree)[0]
    secret = ternary(seeded("patient"), degree)
    secret[7] = large
    opening = Opening(secret, Small(np.zeros(degree, np.int64)))
    element = element_of(DATA_RING, integers(secret), [0] * degree)
    data = prover_of(DATA_RING).prove(element, opening, CONTEXT, seeded("masks"))
    prover_of(DATA_RING).verify(element, CONTEXT, data)


# -- extraction ------------------------------------------------------------------------------------


def doubled_inverse(degree: int, i: int, j: int) -> list[int]:
    """Return 2·(X^i - X^j)^-1: -X^-j·ΣX^(mk) for m = i - j, k up to where X^(mk) = -1."""
    m = (i - j) % (2 * degree)
    steps = degree // (m & -m)
    total = [0] * degree
    for k in range(steps):
        at = (m * k - j) % (2 * degree)
        total[at % degree] -= 1 if at < degree else -1
    return total


def difference(degree: int, i: int, j: int) -> list[int]:
    one = [1] + [0] * (degree - 1)
    return [x - y for x, y in zip(negacyclic(one, i), negacyclic(one, j), strict=True)]


def test_two_over_a_difference_of_monomials_is_ternary() -> None:
    degree = TINY.degree
    modulus = flint.fmpq_poly([1] + [0] * (degree - 1) + [1])
    for i in range(2 * degree):
        for j in range(2 * degree):
            if i == j:
                continue
            gcd, inverse, _ = flint.fmpq_poly(difference(degree, i, j)).xgcd(modulus)
            assert gcd == flint.fmpq_poly([1])
            doubled = [int(x) for x in (2 * inverse % modulus).coeffs()]
            doubled += [0] * (degree - len(doubled))
            assert set(doubled) <= {-1, 0, 1}
            assert doubled == doubled_inverse(degree, i, j)


@pytest.mark.parametrize(("i", "j"), [(5, 4), (16383, 0), (8192, 0), (77, 4173), (0, 2048)])
def test_two_over_a_difference_is_ternary_in_the_data_ring(i: int, j: int) -> None:
    q, doubled = DATA_RING.modulus, doubled_inverse(8192, i, j)
    assert set(doubled) <= {-1, 0, 1}
    assert product(difference(8192, i, j), doubled, q) == [2] + [0] * 8191


def forked(parameters: RingParameters) -> tuple[Element, Opening, bytes, bytes]:
    """Return two proofs with the same masks and different challenges: another context."""
    element, opening, _ = made(parameters)
    prover, fresh = prover_of(parameters), 4 * proof_repetitions(parameters.degree)
    for number in count():
        proofs, sources = [], [SeededSource(f"fork {number}") for _ in range(2)]
        for context, source in zip((b"one", b"two"), sources, strict=True):
            proofs.append(prover.prove(element, opening, context, source))
        if all(source.drawn == fresh * parameters.degree for source in sources):
            return element, opening, proofs[0], proofs[1]
    raise AssertionError


@pytest.mark.parametrize("parameters", [TINY, DATA_RING], ids=lambda ring: ring.name)
def test_two_answers_to_one_commitment_give_the_opening_away(parameters: RingParameters) -> None:
    element, opening, one, two = forked(parameters)
    ring, q = ring_of(parameters), parameters.modulus
    values = element_to_integers(ring, element)
    transcripts = zip(*responses_of(parameters, one), *responses_of(parameters, two), strict=True)
    used = 0
    for i, z, j, other in list(transcripts)[:4]:
        images = [commitment(parameters, values, *pair) for pair in ((i, z), (j, other))]
        assert [x >> 24 for x in images[0]] == [x >> 24 for x in images[1]]
        if i == j:
            continue
        used += 1
        doubled = doubled_inverse(parameters.degree, i, j)
        gap = [x - y for x, y in zip(z, other, strict=True)]
        short = centred(product(gap, doubled, q), q)
        rest = extracted_error(parameters, values, short)
        assert short == [2 * x for x in integers(opening.secret)]
        assert rest == [2 * x for x in integers(opening.error)]
    assert used > 0


def extracted_error(parameters: RingParameters, element: list[int], short: list[int]) -> list[int]:
    """Return e' = 2·element - a·u' around zero."""
    ring, q = ring_of(parameters), parameters.modulus
    image = product(element_to_integers(ring, reference_of(parameters)), short, q)
    return centred((2 * x - y for x, y in zip(element, image, strict=True)), q)


def test_the_worst_that_two_accepted_answers_allow_is_within_the_extracted_bounds() -> None:
    """A liar whose answers differ as much as the verifier lets them, in the worst directions."""
    parameters, degree, q = DATA_RING, DATA_RING.degree, DATA_RING.modulus
    ring, i, j = ring_of(parameters), 4801, 0
    doubled = doubled_inverse(degree, i, j)
    assert 0 not in doubled
    # Coefficient 0 of doubled·d is Σ ±doubled_k·d_(-k): all terms add up.
    worst = [1 if k == 0 else -1 for k in range(degree)]
    worst = [worst[k] * doubled[-k] for k in range(degree)]
    z = [GAMMA - 2 if sign > 0 else -GAMMA + 1 for sign in worst]
    other = [-GAMMA + 1 if sign > 0 else GAMMA - 2 for sign in worst]
    rho = [sign * (HIDDEN - 1) for sign in worst]
    assert proof._within(np.array([z, other]), GAMMA, 1)
    # (X^i - X^j)·element = a·(z - z') - ρ: what equal high parts of both commitments say.
    gap = [x - y for x, y in zip(z, other, strict=True)]
    image = product(element_to_integers(ring, reference_of(parameters)), gap, q)
    right = [x - y for x, y in zip(image, rho, strict=True)]
    half = pow(2, -1, q)
    element = [value * half % q for value in product([x % q for x in right], doubled, q)]
    seen = [commitment(parameters, element, *pair) for pair in ((i, z), (j, other))]
    assert centred((x - y for x, y in zip(*seen, strict=True)), q) == rho
    short = centred(product(gap, doubled, q), q)
    rest = extracted_error(parameters, element, short)
    bound_u, bound_e = extracted_bounds(degree)
    assert 0.99 * bound_u < max(map(abs, short)) <= bound_u
    assert 0.99 * bound_e < max(map(abs, rest)) <= bound_e


# -- the challenges --------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [ring.degree for ring in RINGS])
def test_challenges_leave_less_than_2_to_minus_128(degree: int) -> None:
    repetitions = proof_repetitions(degree)
    assert (2 * degree) ** repetitions >= 2**128
    (parameters,) = [ring for ring in RINGS if ring.degree == degree]
    assert prover_of(parameters).repetitions == repetitions
    drawn = np.array(
        [challenge_exponents(degree, repetitions, seeded(k).bytes(32)) for k in range(2000)]
    )
    assert drawn.min() >= 0 and drawn.max() < 2 * degree
    # Each of the R challenges is uniform on all of [0, 2N), in sixteen parts.
    for column in drawn.T:
        counts = np.bincount(column * 8 // degree, minlength=16)
        assert ((counts - 125) ** 2 / 125).sum() < 15 + LIMIT * np.sqrt(30)
    assert abs(np.corrcoef(drawn.T) - np.eye(repetitions)).max() < LIMIT / np.sqrt(2000)


@ALL_RINGS
def test_rotate_multiplies_by_a_monomial(parameters: RingParameters) -> None:
    ring, degree, q = ring_of(parameters), parameters.degree, parameters.modulus
    element = uniform(seeded("rotated"), ring)
    values = element_to_integers(ring, element)
    for exponent in (0, 1, degree // 2, degree - 1, degree, degree + 1, 2 * degree - 1):
        monomial = [0] * degree
        monomial[exponent % degree] = 1 if exponent < degree else -1
        got = element_to_integers(ring, proof.rotate(element, exponent))
        assert got == product(monomial, values, q)
