"""mphe.proof: complete, bound to its statement, sound by extraction, and silent about u and e."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count

import flint
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mphe import proof
from mphe.errors import EncodingError
from mphe.noise import ERROR_PAIRS, extracted_bounds, proof_bytes, proof_repetitions
from mphe.proof import GAMMA, ShortnessProof, challenge_exponents
from mphe.ring import Limbs, Small
from mphe.rings import DATA_RING, KEY_RING, LARGE_RING, RINGS, RingParameters
from mphe.rlwe import Opening
from mphe.sampling import RandomSource, error, ternary, uniform
from tests.mphe.support import ALL_RINGS, ring_of
from tests.simulation import SeededSource
from tests.support import (
    TINY,
    ScriptedSource,
    centred,
    element_to_integers,
    integers,
    integers_to_element,
    product,
    seeded,
)

LIMIT = 5.0
CONTEXT = b"a context"
HIDDEN = 1 << 24


# -- material ----------------------------------------------------------------------------------


@cache
def prover_of(parameters: RingParameters, label: str = "reference") -> ShortnessProof:
    ring = ring_of(parameters)
    return ShortnessProof(ring, reference_of(parameters, label))


@cache
def reference_of(parameters: RingParameters, label: str = "reference") -> Limbs:
    return uniform(seeded(label), ring_of(parameters))


def element_of(parameters: RingParameters, u: Sequence[int], e: Sequence[int]) -> Limbs:
    """Return a·u + e, by FLINT."""
    ring = ring_of(parameters)
    image = product(element_to_integers(ring, reference_of(parameters)), u, ring.modulus)
    return integers_to_element(ring, [x + y for x, y in zip(image, e, strict=True)])


@cache
def made(parameters: RingParameters, label: str = "opening") -> tuple[Limbs, Opening, bytes]:
    """Return an element, what it is made of, and a proof of that."""
    source, degree = seeded(label), parameters.degree
    opening = Opening(ternary(source, degree), error(source, degree))
    element = element_of(parameters, integers(opening.secret), integers(opening.error))
    return element, opening, prover_of(parameters).prove(element, opening, CONTEXT, source)


def refused(prover: ShortnessProof, element: Limbs, context: bytes, data: bytes) -> str:
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


# -- completeness ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "proofs"), [(KEY_RING, 3), (DATA_RING, 6), (LARGE_RING, 2)], ids=str
)
def test_a_proof_of_a_short_opening_verifies(parameters: RingParameters, proofs: int) -> None:
    prover = prover_of(parameters)
    for number in range(proofs):
        element, _, data = made(parameters, f"opening {number}")
        assert len(data) == prover.length == proof_bytes(parameters.degree)
        prover.verify(element, CONTEXT, data)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_opening_has_a_proof(sign: int) -> None:
    degree, prover = DATA_RING.degree, prover_of(DATA_RING)
    opening = Opening(np.full(degree, sign), np.full(degree, sign * ERROR_PAIRS))
    element = element_of(DATA_RING, integers(opening.secret), integers(opening.error))
    prover.verify(element, CONTEXT, prover.prove(element, opening, CONTEXT, seeded("largest")))


@ALL_RINGS
def test_products_with_the_largest_masks_are_exact(parameters: RingParameters) -> None:
    ring, degree = ring_of(parameters), parameters.degree
    signs = ternary(seeded("signs"), degree)
    for small in (np.full(degree, -GAMMA), np.where(signs > 0, GAMMA - 1, -GAMMA)):
        expected = product(
            element_to_integers(ring, reference_of(parameters)), integers(small), ring.modulus
        )
        got = prover_of(parameters)._times_reference(small)
        assert element_to_integers(ring, got) == expected


def test_a_proof_fits_the_equations_of_the_docs() -> None:
    """The verifier's equations with Python integers, FLINT and hashlib alone."""
    element, _, data = made(DATA_RING)
    ring = ring_of(DATA_RING)
    values = element_to_integers(ring, element)
    exponents, rows = responses_of(DATA_RING, data)
    assert len(rows) == 10
    digest = hashlib.sha256()
    parts = [b"shortness proof", CONTEXT, wire(values, 0, 192)]
    for i, z in zip(exponents, rows, strict=True):
        parts.append(wire(commitment(DATA_RING, values, i, z), 24, 192))
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    assert digest.digest() == data[:32]


def wire(values: list[int], start: int, end: int) -> bytes:
    """Return bits start to end of each coefficient: bytes of the first limb, then limbs."""
    data = b""
    for byte in range(start // 8, -(-start // 32) * 4):
        data += bytes(value >> 8 * byte & 0xFF for value in values)
    for limb in range(-(-start // 32), end // 32):
        data += b"".join(
            (value >> 32 * limb & 0xFFFFFFFF).to_bytes(4, "little") for value in values
        )
    return data


def test_a_known_proof_of_a_known_stream() -> None:
    element, _, data = made(DATA_RING)
    assert hashlib.sha256(data).hexdigest() == KNOWN_PROOF
    # Nothing but its arguments enters a proof.
    source = seeded("opening")
    opening = Opening(ternary(source, 8192), error(source, 8192))
    assert prover_of(DATA_RING).prove(element, opening, CONTEXT, source) == data


KNOWN_PROOF = "5c435530f83bd3ab3e44a099d42d0940789d543c74bdbe6a83d7cf3f9d0bbb5c"


# -- what a proof is bound to ------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [DATA_RING, LARGE_RING], ids=lambda ring: ring.name)
def test_a_proof_is_for_one_element_one_context_and_one_reference(
    parameters: RingParameters,
) -> None:
    element, _, data = made(parameters)
    other, _, foreign = made(parameters, "opening 1")
    prover, ring = prover_of(parameters), ring_of(parameters)
    next_to = element.copy()
    next_to[0, -1] ^= 1
    turned = ring.reduce(proof.rotate(element, 1))
    for wrong in (other, next_to, turned, ring.reduce(-element), ring.zero()):
        assert "does not fit" in refused(prover, wrong, CONTEXT, data)
    for context in (b"", CONTEXT + b"\0", CONTEXT[:-1], b"another"):
        assert "does not fit" in refused(prover, element, context, data)
    elsewhere = prover_of(parameters, "another reference")
    assert "does not fit" in refused(elsewhere, element, CONTEXT, data)
    assert "does not fit" in refused(prover, element, CONTEXT, foreign)
    assert "does not fit" in refused(prover, element, CONTEXT, data[:32] + foreign[32:])
    prover.verify(element, CONTEXT, data)


def test_every_part_of_the_statement_enters_the_challenge() -> None:
    ring, prover = ring_of(TINY), prover_of(TINY)
    images = [uniform(seeded(f"image {r}"), ring) for r in range(prover.repetitions)]
    element = uniform(seeded("element"), ring)
    seed = prover._challenge(element, CONTEXT, images)
    seen = {seed, prover._challenge(element, b"other", images)}
    for k in range(TINY.degree):
        changed = element.copy()
        changed[0, k] ^= 1
        seen.add(prover._challenge(changed, CONTEXT, images))
    for r in range(prover.repetitions):
        for limb, bit, hidden in ((0, 0, True), (0, 23, True), (0, 24, False), (1, 31, False)):
            moved = [image.copy() for image in images]
            moved[r][limb, r % TINY.degree] ^= 1 << bit
            challenge = prover._challenge(element, CONTEXT, moved)
            assert (challenge == seed) == hidden
            seen.add(challenge)
    assert len(seen) == 2 + TINY.degree + 2 * prover.repetitions


def test_every_changed_byte_is_refused() -> None:
    element, _, data = made(TINY)
    prover = prover_of(TINY)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        refused(prover, element, CONTEXT, bytes(changed))


def test_every_byte_of_the_challenge_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    # A changed seed changes the exponents too; here it does not.
    monkeypatch.setattr(proof, "challenge_exponents", lambda _, repetitions, __: [3] * repetitions)
    element, opening, _ = made(TINY)
    prover = prover_of(TINY)
    data = prover.prove(element, opening, CONTEXT, seeded("constant"))
    prover.verify(element, CONTEXT, data)
    for at in range(32):
        changed = bytearray(data)
        changed[at] ^= 0x80
        assert "does not fit" in refused(prover, element, CONTEXT, bytes(changed))


def test_changed_bits_of_a_large_proof_are_refused() -> None:
    element, _, data = made(DATA_RING)
    places = [
        *range(0, 256, 16),
        *range(256, 8 * len(data), 8 * len(data) // 30),
        8 * len(data) - 1,
    ]
    for bit in places:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        refused(prover_of(DATA_RING), element, CONTEXT, bytes(changed))


def test_a_proof_of_another_length_is_refused() -> None:
    element, _, data = made(TINY)
    prover = prover_of(TINY)
    row = TINY.degree * 5 // 2
    ends = [*range(0, 34), *range(32, len(data), row), *range(len(data) - 12, len(data))]
    for wrong in (*(data[:end] for end in ends), data + b"\0", data + bytes(5), data + data[-row:]):
        assert "bytes where" in refused(prover, element, CONTEXT, wrong)


# -- large responses ---------------------------------------------------------------------------


def proof_with_response(value: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Limbs, bytes]:
    """Return a proof, with no margin, that has one response of this value: z = y since u = 0."""
    degree, prover = TINY.degree, prover_of(TINY)
    masks = np.zeros(prover.repetitions * degree, "<u4") + GAMMA
    masks[37] = value + GAMMA
    opening = Opening(np.zeros(degree, np.int64), error(seeded("error"), degree))
    element = element_of(TINY, [0] * degree, integers(opening.error))
    with monkeypatch.context() as insecure:
        insecure.setattr(proof, "_TERNARY", 0)
        # y = 0 has no low part to hide e in.
        insecure.setattr(proof, "_keeps_high_part", lambda *_: True)
        data = prover.prove(element, opening, CONTEXT, ScriptedSource(masks.tobytes()))
    assert value in responses_of(TINY, data)[1][37 // degree]
    return element, data


def test_a_response_at_the_end_of_its_range_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    prover = prover_of(TINY)
    # Only the range decides.
    monkeypatch.setattr(ShortnessProof, "_challenge", lambda *_: bytes(32))
    for value in (-GAMMA, GAMMA - 1):
        element, data = proof_with_response(value, monkeypatch)
        assert "too large" in refused(prover, element, CONTEXT, data)
    for value in (-GAMMA + 1, GAMMA - 2):
        element, data = proof_with_response(value, monkeypatch)
        prover.verify(element, CONTEXT, data)


# -- false witnesses ---------------------------------------------------------------------------


def pack_what_fits(values: Small, pack: Callable[[Small], bytes] = proof._pack) -> bytes:
    return pack(values & (2 * GAMMA - 1))


def attempt(
    u: list[int], e: list[int], monkeypatch: pytest.MonkeyPatch, tries: int = 20
) -> list[str]:
    """Return what the verifier says to honest prover code that rejects nothing: "" is taken.

    Responses beyond 20 bits are cut off, since more do not fit the wire.
    """
    prover, element = prover_of(TINY), element_of(TINY, u, e)
    opening, said = Opening(np.array(u), np.array(e)), []
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
    opening = Opening(np.array(u), np.zeros(TINY.degree, np.int64))
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
    opening = Opening(secret, np.zeros(degree, np.int64))
    element = element_of(DATA_RING, integers(secret), [0] * degree)
    data = prover_of(DATA_RING).prove(element, opening, CONTEXT, seeded("masks"))
    prover_of(DATA_RING).verify(element, CONTEXT, data)


# -- extraction --------------------------------------------------------------------------------


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


def forked(parameters: RingParameters) -> tuple[Limbs, Opening, bytes, bytes]:
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


# -- the challenges ----------------------------------------------------------------------------


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


# -- silence -----------------------------------------------------------------------------------


def visible(values: Small, secrets: Sequence[int], half: int, margin: int) -> list[list[int]]:
    """Return for each secret what is shown of these masks: y + secret, where it is accepted."""
    return [
        [y + s for y in integers(values) if proof._within(np.array([y + s]), half, margin)]
        for s in secrets
    ]


def near_the_ends(half: int, width: int) -> Small:
    return np.concatenate((np.arange(-half, -half + width), np.arange(half - width, half)))


def test_the_same_responses_are_shown_for_every_secret() -> None:
    # Masks are uniform, so equal sets are equal distributions.
    shown = visible(near_the_ends(GAMMA, 20), (-1, 0, 1), GAMMA, proof._TERNARY)
    inner = [{z for z in group if abs(z) > GAMMA - 15} for group in shown]
    assert inner[0] == inner[1] == inner[2]
    assert len(inner[0]) == 2 * 15 - 3
    leaking = visible(near_the_ends(GAMMA, 20), (-1, 1), GAMMA, 0)
    assert set(leaking[0]) ^ set(leaking[1]) >= {-GAMMA, GAMMA - 1}


def test_the_same_low_parts_are_shown_for_every_error() -> None:
    half = HIDDEN // 2
    low = near_the_ends(half, 100) + half
    shown = []
    for e in (-21, -7, 0, 1, 21):
        accepted = set()
        for value in integers(low):
            image = np.array([[value + 5 * HIDDEN], [9]])
            if proof._keeps_high_part([image], np.array([[e]])):
                accepted.add(value - e)
        shown.append({v for v in accepted if min(v, HIDDEN - 1 - v) < 70})
    assert all(group == shown[0] for group in shown)
    # 21 on either side are never shown.
    assert len(shown[0]) == 2 * (70 - ERROR_PAIRS)


def by_sign(proofs: int, opening: Opening) -> tuple[tuple[Small, Small], tuple[Small, Small]]:
    """Return z where X^i·u is positive and negative, and low parts where X^i·e is."""
    element = element_of(TINY, integers(opening.secret), integers(opening.error))
    values = element_to_integers(ring_of(TINY), element)
    z: dict[bool, list[int]] = {True: [], False: []}
    low: dict[bool, list[int]] = {True: [], False: []}
    source: RandomSource = seeded("silence")
    for number in range(proofs):
        data = prover_of(TINY).prove(element, opening, b"%d" % number, source)
        exponents, rows = responses_of(TINY, data)
        for i, row in zip(exponents, shifted(rows), strict=True):
            signs = negacyclic(integers(opening.secret), i)
            seen = commitment(TINY, values, i, row)
            for sign, response, image in zip(signs, row, seen, strict=True):
                z[sign > 0].append(response)
                low[sign > 0].append(image % (1 << SMALL_HIDDEN))
    return (np.array(z[True]), np.array(z[False])), (np.array(low[True]), np.array(low[False]))


def shifted(rows: list[list[int]]) -> list[list[int]]:
    """Return responses of a prover with a smaller range: what was added is its own bound."""
    return [[value + 2**19 - proof.GAMMA for value in row] for row in rows]


def two_sample_deviation(groups: tuple[Small, Small], edges: list[int]) -> float:
    """Return how far two histograms are apart, in deviations of a chi-square statistic."""
    counts = [np.histogram(group, edges)[0].astype(float) for group in groups]
    total = counts[0] + counts[1]
    used = total > 0
    share = [count.sum() / total.sum() for count in counts]
    statistic = sum(
        ((count - part * total)[used] ** 2 / (part * total)[used]).sum()
        for count, part in zip(counts, share, strict=True)
    )
    freedom = int(used.sum()) - 1
    return float((statistic - freedom) / np.sqrt(2 * freedom))


SMALL_GAMMA, SMALL_HIDDEN = 512, 16
RESPONSE_EDGES = [-514, -512, -511, -510, -509, -256, 0, 256, 508, 509, 510, 511, 514]
LOW_EDGES = [0, 21, 42, 63, 84, 1 << 15, 65536 - 84, 65536 - 63, 65536 - 42, 65536 - 21, 65536]


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Make ends so near that a few hundred proofs reach them often."""
    monkeypatch.setattr(proof, "GAMMA", SMALL_GAMMA)
    monkeypatch.setattr(proof, "HIDDEN_BITS", SMALL_HIDDEN)
    monkeypatch.setattr(proof, "HIDDEN_BYTES", SMALL_HIDDEN // 8)
    return monkeypatch


LARGEST = Opening(np.full(TINY.degree, 1), np.full(TINY.degree, ERROR_PAIRS))


@pytest.mark.usefixtures("small_ranges")
def test_proofs_do_not_depend_on_what_they_hide() -> None:
    responses, low = by_sign(1000, LARGEST)
    assert abs(two_sample_deviation(responses, RESPONSE_EDGES)) < LIMIT
    assert abs(two_sample_deviation(low, LOW_EDGES)) < LIMIT
    for group, seen in zip(responses, low, strict=True):
        assert (group.min(), group.max()) == (1 - SMALL_GAMMA, SMALL_GAMMA - 2)
        assert seen.min() >= ERROR_PAIRS and seen.max() < (1 << SMALL_HIDDEN) - ERROR_PAIRS


@pytest.mark.parametrize("margin", ["_TERNARY", "ERROR_PAIRS"])
def test_without_a_margin_proofs_show_what_they_hide(
    margin: str, small_ranges: pytest.MonkeyPatch
) -> None:
    small_ranges.setattr(proof, margin, 0)
    responses, low = by_sign(1000, LARGEST)
    leaks = {
        "_TERNARY": two_sample_deviation(responses, RESPONSE_EDGES),
        "ERROR_PAIRS": two_sample_deviation(low, LOW_EDGES),
    }
    print(leaks)
    assert leaks.pop(margin) > 3 * LIMIT
    assert abs(leaks.popitem()[1]) < LIMIT


@pytest.mark.parametrize("parameters", [DATA_RING], ids=lambda ring: ring.name)
def test_responses_are_uniform(parameters: RingParameters) -> None:
    for label in ("opening", "opening 1"):
        _, rows = responses_of(parameters, made(parameters, label)[2])
        values = np.array(rows).reshape(-1) + GAMMA
        counts = np.bincount(values >> 10, minlength=1024)
        mean = values.size / 1024
        assert counts.size == 1024
        assert abs(((counts - mean) ** 2 / mean).sum() - 1023) < LIMIT * np.sqrt(2 * 1023)
        low_bits = np.bincount(values & 0xFF, minlength=256)
        mean = values.size / 256
        assert abs(((low_bits - mean) ** 2 / mean).sum() - 255) < LIMIT * np.sqrt(2 * 255)


# -- the wire ----------------------------------------------------------------------------------


@given(st.lists(st.tuples(*[st.integers(0, (1 << 20) - 1)] * 2), min_size=1, max_size=40))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_packing_takes_two_values_in_five_bytes_and_gives_them_back(
    pairs: list[tuple[int, int]],
) -> None:
    values = np.array(pairs).reshape(-1)
    data = proof._pack(values)
    assert data == b"".join((x | y << 20).to_bytes(5, "little") for x, y in pairs)
    assert np.array_equal(proof._unpack(data), values)


@given(st.binary(min_size=1, max_size=40).map(lambda data: data * 5))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_any_bytes_unpack_to_values_of_20_bits_and_back(data: bytes) -> None:
    values = proof._unpack(data)
    assert values.shape == (len(data) * 2 // 5,)
    assert values.min() >= 0 and values.max() < 1 << 20
    assert proof._pack(values) == data
