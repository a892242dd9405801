"""mphe.scheme.proof: complete, bound to its statement, of one length and form."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mphe.arithmetic.noise import ERROR_PAIRS, proof_bytes
from mphe.arithmetic.ring import Element, Limbs, Small
from mphe.arithmetic.rings import DATA_RING, KEY_RING, LARGE_RING, RingParameters
from mphe.arithmetic.sampling import error, ternary, uniform
from mphe.scheme import proof
from mphe.scheme.proof import GAMMA, ShortnessProof
from mphe.scheme.rlwe import Opening
from tests.mphe.proving import (
    CONTEXT,
    commitment,
    element_of,
    made,
    prover_of,
    reference_of,
    refused,
    responses_of,
)
from tests.mphe.support import ALL_RINGS, ring_of
from tests.support import (
    TINY,
    ScriptedSource,
    element_to_integers,
    integers,
    product,
    seeded,
)

# -- completeness ----------------------------------------------------------------------------------


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
    opening = Opening(Small(np.full(degree, sign)), Small(np.full(degree, sign * ERROR_PAIRS)))
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
        got = prover_of(parameters)._times_reference(Small(small))
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


# -- what a proof is bound to ----------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [DATA_RING, LARGE_RING], ids=lambda ring: ring.name)
def test_a_proof_is_for_one_element_one_context_and_one_reference(
    parameters: RingParameters,
) -> None:
    element, _, data = made(parameters)
    other, _, foreign = made(parameters, "opening 1")
    prover, ring = prover_of(parameters), ring_of(parameters)
    next_to = element.copy()
    next_to[0, -1] ^= 1
    turned = ring.reduce(Limbs(proof.rotate(element, 1)))
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


# -- large responses -------------------------------------------------------------------------------


def proof_with_response(value: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Element, bytes]:
    """Return a proof, with no margin, that has one response of this value: z = y since u = 0."""
    degree, prover = TINY.degree, prover_of(TINY)
    masks = np.zeros(prover.repetitions * degree, "<u4") + GAMMA
    masks[37] = value + GAMMA
    opening = Opening(Small(np.zeros(degree, np.int64)), error(seeded("error"), degree))
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


# -- the wire --------------------------------------------------------------------------------------


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
