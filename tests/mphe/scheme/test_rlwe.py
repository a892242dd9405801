"""mphe.scheme.rlwe: shares, the collective key and encryption, against FLINT."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from mphe.arithmetic.noise import ERROR_PAIRS, aggregate_noise
from mphe.arithmetic.ring import Element, Limbs, Ring, Small
from mphe.arithmetic.rings import KEY_RING, RINGS, RingParameters
from mphe.arithmetic.sampling import centred_binomial
from mphe.scheme.rlwe import CollectiveKey, KeyShare, aggregate_shares, common_reference, gen_share
from tests.support import (
    centred,
    element_to_integers,
    integers,
    integers_to_element,
    product,
    seeded,
    uniform_deviation,
)

ALL_RINGS = pytest.mark.parametrize("parameters", RINGS, ids=lambda ring: ring.name)
SEED = bytes(range(32))


def opened(ring: Ring, secret: Small, masked: Element, other: Element) -> list[int]:
    """Return masked - s·other around zero, by FLINT."""
    hidden = product(integers(secret), element_to_integers(ring, other), ring.modulus)
    pairs = zip(element_to_integers(ring, masked), hidden, strict=True)
    return centred((x - y for x, y in pairs), ring.modulus)


def deal(ring: Ring, count: int, label: str) -> tuple[list[KeyShare], CollectiveKey, Small]:
    reference, source = common_reference(ring, SEED), seeded(label)
    shares = [gen_share(ring, reference, source) for _ in range(count)]
    public = aggregate_shares(ring, [share.public for share in shares])
    secret: Small = np.sum([share.secret for share in shares], axis=0)
    return shares, CollectiveKey(ring, reference, public), secret


@ALL_RINGS
def test_a_key_share_is_a_times_s_plus_a_small_error(parameters: RingParameters) -> None:
    ring = Ring(parameters)
    (share,), key, _ = deal(ring, 1, "share")
    assert set(share.secret.tolist()) == {-1, 0, 1}
    error = opened(ring, share.secret, share.public, key.reference)
    assert max(map(abs, error)) <= ERROR_PAIRS
    deviation = sqrt(sum(x * x for x in error) / len(error))
    assert deviation == pytest.approx(3.24, rel=5 / sqrt(2 * ring.degree))


def test_key_shares_are_fresh() -> None:
    ring = Ring(KEY_RING)
    (one, two), _, _ = deal(ring, 2, "fresh")
    assert not np.array_equal(one.secret, two.secret)
    assert not np.array_equal(one.public, two.public)
    # Equal errors would show the difference of two secrets: a·(s_1 - s_2) exactly.
    difference = ring.reduce(Limbs(one.public - two.public))
    reference = common_reference(ring, SEED)
    assert any(opened(ring, Small(one.secret - two.secret), difference, reference))


def test_the_collective_key_belongs_to_the_sum_of_the_secrets() -> None:
    ring = Ring(KEY_RING)
    shares, key, secret = deal(ring, 5, "collective")
    error = opened(ring, secret, key.key, key.reference)
    assert max(map(abs, error)) <= 5 * ERROR_PAIRS
    total = [
        sum(column)
        for column in zip(*(element_to_integers(ring, s.public) for s in shares), strict=True)
    ]
    assert np.array_equal(key.key, integers_to_element(ring, total))


def test_the_reference_depends_on_the_seed_alone() -> None:
    ring = Ring(KEY_RING)
    assert np.array_equal(common_reference(ring, SEED), common_reference(Ring(KEY_RING), SEED))
    assert not np.array_equal(common_reference(ring, SEED), common_reference(ring, bytes(32)))


@ALL_RINGS
def test_decryption_gives_the_plaintext_and_small_noise(parameters: RingParameters) -> None:
    ring = Ring(parameters)
    _, key, secret = deal(ring, 3, "encrypt")
    scale = parameters.bits - 20
    message = [(7 * i) % 1000 for i in range(ring.degree)]
    plaintext = integers_to_element(ring, [value << scale for value in message])
    ciphertext = key.encrypt(plaintext, seeded("encrypt"))
    values = opened(ring, secret, ciphertext.c0, ciphertext.c1)
    noise = centred((v - (m << scale) for v, m in zip(values, message, strict=True)), ring.modulus)
    assert 0 < max(map(abs, noise)) < aggregate_noise(ring.degree, 3, 1)


def test_ciphertexts_add_up() -> None:
    ring = Ring(KEY_RING)
    _, key, secret = deal(ring, 2, "add")
    scale, source = 60, seeded("add")
    messages = [[i % (k + 2) for i in range(ring.degree)] for k in range(4)]
    encrypted = [
        key.encrypt(integers_to_element(ring, [v << scale for v in m]), source) for m in messages
    ]
    c0 = np.sum([c.c0 for c in encrypted], axis=0)
    c1 = np.sum([c.c1 for c in encrypted], axis=0)
    got = [(v + (1 << (scale - 1))) >> scale for v in opened(ring, secret, c0, c1)]
    assert got == [sum(column) for column in zip(*messages, strict=True)]


def test_a_short_plaintext_leaves_the_other_coefficients_at_zero() -> None:
    ring = Ring(KEY_RING)
    _, key, secret = deal(ring, 2, "short")
    plaintext = integers_to_element(ring, [5 << 60] * 10)
    ciphertext = key.encrypt(plaintext, seeded("short"))
    values = opened(ring, secret, ciphertext.c0, ciphertext.c1)
    assert [(v + (1 << 59)) >> 60 for v in values] == [5] * 10 + [0] * (ring.degree - 10)


def test_every_encryption_has_its_own_u_and_errors() -> None:
    ring = Ring(KEY_RING)
    _, key, secret = deal(ring, 2, "own")
    source = seeded("own")
    first, second = (key.encrypt(ring.zero(), source) for _ in range(2))
    # u reused under one (a, b) would leave only errors in the difference.
    for a, b in ((first.c0, second.c0), (first.c1, second.c1)):
        difference = ring.reduce(Limbs(a - b))
        assert abs(uniform_deviation(difference[-1] >> 24, 256)) < 5
    noises = [opened(ring, secret, c.c0, c.c1) for c in (first, second)]
    assert noises[0] != noises[1]


def test_a_prepared_half_is_opened_by_what_made_it() -> None:
    ring = Ring(KEY_RING)
    (share,), key, _ = deal(ring, 1, "prepared")
    source = seeded("prepared")
    first, second = key.prepare(source), key.prepare(source)
    for opening, element in (
        (first.opening, first.c1),
        (second.opening, second.c1),
        (share.opening, share.public),
    ):
        assert set(opening.secret.tolist()) == {-1, 0, 1}
        assert opened(ring, opening.secret, element, key.reference) == integers(opening.error)
        assert max(map(abs, integers(opening.error))) <= ERROR_PAIRS
    assert not np.array_equal(first.opening.secret, second.opening.secret)
    assert not np.array_equal(first.opening.error, second.opening.error)


def test_a_ciphertext_is_a_prepared_half_completed() -> None:
    ring = Ring(KEY_RING)
    _, key, secret = deal(ring, 2, "halves")
    plaintext = integers_to_element(ring, [7 << 60] * ring.degree)
    whole, source = key.encrypt(plaintext, seeded("whole")), seeded("whole")
    prepared = key.prepare(source)
    c0 = key.complete(prepared, plaintext, source)
    assert np.array_equal(whole.c0, c0) and np.array_equal(whole.c1, prepared.c1)
    values = opened(ring, secret, c0, prepared.c1)
    assert [(v + (1 << 59)) >> 60 for v in values] == [7] * ring.degree
    # What hides m in c0 - b·u is a fresh e0.
    assert not np.array_equal(c0, key.complete(prepared, plaintext, source))


def test_a_ciphertext_looks_uniform() -> None:
    ring = Ring(KEY_RING)
    _, key, _ = deal(ring, 2, "looks")
    ciphertext = key.encrypt(ring.zero(), seeded("looks"))
    for half in (ciphertext.c0, ciphertext.c1):
        for limb in half:
            assert abs(uniform_deviation(limb & 0xFF, 256)) < 5
            assert abs(uniform_deviation(limb >> 24, 256)) < 5


@ALL_RINGS
def test_everything_that_leaves_is_canonical(parameters: RingParameters) -> None:
    ring = Ring(parameters)
    shares, key, _ = deal(ring, 2, "canonical")
    ciphertext = key.encrypt(ring.zero(), seeded("canonical"))
    for element in (shares[0].public, key.key, ciphertext.c0, ciphertext.c1):
        assert np.array_equal(
            element, integers_to_element(ring, element_to_integers(ring, element))
        )


def test_errors_are_added_to_both_halves_of_a_ciphertext(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Ring(KEY_RING)
    _, key, _ = deal(ring, 2, "halves")
    noisy = key.encrypt(ring.zero(), seeded("halves"))
    # The same stream with the errors read and forgotten: what differs is e0 and e1.
    monkeypatch.setattr(
        "mphe.scheme.rlwe.error",
        lambda source, count: 0 * centred_binomial(source, count, ERROR_PAIRS),
    )
    bare = key.encrypt(ring.zero(), seeded("halves"))
    errors = [
        centred(element_to_integers(ring, a - b), ring.modulus)
        for a, b in ((noisy.c0, bare.c0), (noisy.c1, bare.c1))
    ]
    for values in errors:
        assert 0 < max(map(abs, values)) <= ERROR_PAIRS
        assert sqrt(sum(x * x for x in values) / ring.degree) == pytest.approx(3.24, rel=0.06)
    assert errors[0] != errors[1]
