"""mphe.scheme.sealing: only the named receiver opens, only the named signer signs."""

from __future__ import annotations

from hashlib import sha256
from itertools import product

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from mphe.arithmetic.system import System
from mphe.errors import EncodingError
from mphe.scheme.sealing import (
    ENCAPSULATION_BYTES,
    TAG_BYTES,
    Encapsulated,
    PairwiseKeys,
    encapsulate,
    is_encapsulation_key,
    is_exchange_key,
    sign,
    verify,
)
from tests import kem
from tests.support import SeededSystem, seed_of, seeded

SESSION = bytes(range(32))
OTHER_SESSION = bytes(32)
P = 2**255 - 19

# Points of order 1, 2, 4 and 8 on Curve25519 and its twist, and their non-canonical forms
# (Cremers and Jackson 2019/526, table 1).
ORDER_8 = [
    0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
]
LOW_ORDER = [
    (point | high << 255).to_bytes(32, "little")
    for point, high in product([0, 1, *ORDER_8, P - 1, P, P + 1], [0, 1])
]


def key_of(index: int) -> PairwiseKeys:
    return PairwiseKeys.generate(index, seeded(f"pairwise {index}"))


alice, bob, carol = key_of(1), key_of(2), key_of(3)


def shared(sender: PairwiseKeys, receiver: PairwiseKeys) -> tuple[Encapsulated, bytes]:
    """Return what one encapsulated to the other, and the ciphertext."""
    system = SeededSystem(f"{sender.index} to {receiver.index}")
    return encapsulate(system, receiver.index, receiver.encapsulation_key)


def sealed_by(sender: PairwiseKeys, receiver: PairwiseKeys, text: bytes) -> tuple[bytes, bytes]:
    """Return a sealed text and its encapsulation."""
    secret, ciphertext = shared(sender, receiver)
    return sender.seal(receiver.public, SESSION, text, secret), ciphertext


# -- sealed shares -----------------------------------------------------------------------------


@given(st.binary(max_size=2000))
@settings(deadline=None, max_examples=40, derandomize=True)
def test_what_is_sealed_opens(text: bytes) -> None:
    sealed, ciphertext = sealed_by(alice, bob, text)
    assert len(sealed) == len(text) + TAG_BYTES
    assert len(ciphertext) == ENCAPSULATION_BYTES
    assert bob.open(alice.public, SESSION, sealed, bob.decapsulate(1, ciphertext)) == text


def test_the_seal_is_hkdf_and_chacha20_poly1305() -> None:
    private = X25519PrivateKey.from_private_bytes(seeded("pairwise 1").bytes(32))
    assert private.public_key().public_bytes_raw() == alice.public
    source = seeded("pairwise 2")
    exchanged = private.exchange(X25519PrivateKey.from_private_bytes(source.bytes(32)).public_key())
    kem = MLKEM768PrivateKey.from_seed_bytes(source.bytes(64))
    assert kem.public_key().public_bytes_raw() == bob.encapsulation_key
    sealed, ciphertext = sealed_by(alice, bob, b"text")
    secret, digest = kem.decapsulate(ciphertext), sha256(ciphertext).digest()
    one, two = (1).to_bytes(4, "big"), (2).to_bytes(4, "big")
    info = b"seal" + one + two + digest
    key = HKDF(SHA256(), 32, salt=SESSION, info=info).derive(exchanged + secret)
    assert sealed == ChaCha20Poly1305(key).encrypt(bytes(12), b"text", SESSION + one + two)


def refused(
    receiver: PairwiseKeys, sender: int, public: bytes, session: bytes, sealed: tuple[bytes, bytes]
) -> bool:
    try:
        receiver.open(public, session, sealed[0], receiver.decapsulate(sender, sealed[1]))
    except EncodingError as error:
        return f"client {sender} does not open" in str(error)
    return False


def test_nobody_else_opens_and_nobody_else_sealed() -> None:
    sealed = sealed_by(alice, bob, b"secret")
    assert refused(carol, 1, alice.public, SESSION, sealed)
    assert refused(bob, 3, carol.public, SESSION, sealed)
    assert refused(bob, 1, carol.public, SESSION, sealed)
    assert refused(bob, 3, alice.public, SESSION, sealed)
    assert refused(bob, 1, alice.public, OTHER_SESSION, sealed)
    assert not refused(bob, 1, alice.public, SESSION, sealed)


def test_a_share_cannot_be_sent_back_to_its_sealer() -> None:
    sealed = sealed_by(alice, bob, b"secret")
    assert refused(alice, 2, bob.public, SESSION, sealed)


def test_the_same_keys_under_another_index_open_nothing() -> None:
    twin = PairwiseKeys.generate(4, seeded("pairwise 2"))
    assert (twin.public, twin.encapsulation_key) == (bob.public, bob.encapsulation_key)
    assert refused(twin, 1, alice.public, SESSION, sealed_by(alice, bob, b"x"))


def test_every_flipped_bit_is_noticed() -> None:
    sealed, ciphertext = sealed_by(alice, bob, b"secret")
    for position in range(8 * len(sealed)):
        forged = bytearray(sealed)
        forged[position // 8] ^= 1 << position % 8
        assert refused(bob, 1, alice.public, SESSION, (bytes(forged), ciphertext))


def test_a_changed_encapsulation_is_noticed_by_the_seal_of_an_empty_text_too() -> None:
    sealed, ciphertext = sealed_by(alice, bob, b"")
    assert len(sealed) == TAG_BYTES
    for position in range(0, 8 * len(ciphertext), 37):
        forged = bytearray(ciphertext)
        forged[position // 8] ^= 1 << position % 8
        assert refused(bob, 1, alice.public, SESSION, (sealed, bytes(forged)))


@pytest.mark.parametrize("length", [0, 1, 1087, 1089])
def test_an_encapsulation_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(EncodingError, match="client 1 sent no encapsulation"):
        bob.decapsulate(1, bytes(length))


@pytest.mark.parametrize("length", [0, 1, 15, 16, 21])
def test_a_truncated_share_does_not_open(length: int) -> None:
    sealed, ciphertext = sealed_by(alice, bob, b"secret")
    assert refused(bob, 1, alice.public, SESSION, (sealed[:length], ciphertext))


def test_the_library_draws_a_new_secret_each_time() -> None:
    drawn = {encapsulate(System(), 2, bob.encapsulation_key)[0].secret for _ in range(20)}
    assert len(drawn) == 20


def test_what_the_second_encapsulation_makes_is_opened_by_the_library() -> None:
    for label in range(50):
        keys = PairwiseKeys.generate(1, seeded(f"kem {label}"))
        secret, ciphertext = kem.encapsulate(keys.encapsulation_key, seed_of(label))
        assert keys.decapsulate(2, ciphertext).secret == secret


# -- zero-share keys ---------------------------------------------------------------------------


def zero_share(one: PairwiseKeys, two: PairwiseKeys, name: bytes = SESSION) -> bytes:
    """Return the key that two clients agree on."""
    made, ciphertext = shared(one, two)
    here = one.zero_share_key(two.public, name, made)
    assert here == two.zero_share_key(one.public, name, two.decapsulate(one.index, ciphertext))
    return here


def test_both_sides_derive_the_same_zero_share_key() -> None:
    for one, two in ((alice, bob), (alice, carol), (bob, carol)):
        assert len(zero_share(one, two)) == 32


def test_zero_share_keys_differ_between_pairs_and_sessions() -> None:
    keys = {
        zero_share(one, two, session)
        for one, two in ((alice, bob), (alice, carol), (bob, carol))
        for session in (SESSION, OTHER_SESSION)
    }
    assert len(keys) == 6


def test_a_zero_share_key_does_not_open_what_is_sealed() -> None:
    sealed, _ = sealed_by(alice, bob, b"secret")
    context = SESSION + (1).to_bytes(4, "big") + (2).to_bytes(4, "big")
    with pytest.raises(InvalidTag):
        ChaCha20Poly1305(zero_share(alice, bob)).decrypt(bytes(12), sealed, context)


# -- exchange keys -----------------------------------------------------------------------------


def test_proper_points_are_exchange_keys() -> None:
    assert all(is_exchange_key(key_of(index).public) for index in range(20))
    assert is_exchange_key((9).to_bytes(32, "little"))


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point[::-1].hex()[:8])
def test_points_of_small_order_are_refused(point: bytes) -> None:
    assert not is_exchange_key(point)
    given, _ = shared(alice, bob)
    with pytest.raises(EncodingError, match="not a proper X25519 point"):
        alice.seal(point, SESSION, b"text", given)
    with pytest.raises(EncodingError, match="not a proper X25519 point"):
        alice.open(point, SESSION, bytes(40), given)
    with pytest.raises(EncodingError, match="not a proper X25519 point"):
        alice.zero_share_key(point, SESSION, given)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    assert not is_exchange_key(b"\x09" * length)
    with pytest.raises(EncodingError, match="not a proper"):
        alice.zero_share_key(b"\x09" * length, SESSION, shared(alice, bob)[0])


def test_only_keys_of_ml_kem_are_encapsulation_keys() -> None:
    assert is_encapsulation_key(alice.encapsulation_key)
    assert not is_encapsulation_key(b"")
    assert not is_encapsulation_key(alice.encapsulation_key[:-1])
    # FIPS 203, 7.2: a coefficient that is not below 3329.
    assert not is_encapsulation_key(b"\xff\xff\xff" + alice.encapsulation_key[3:])


# -- signatures --------------------------------------------------------------------------------

signer = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = signer.public_key().public_bytes_raw()


def test_a_signature_verifies() -> None:
    signature = sign(signer, "join", b"a", b"bc")
    assert len(signature) == 64
    assert verify(PUBLIC, signature, "join", b"a", b"bc")


def test_a_signature_is_bound_to_purpose_parts_and_key() -> None:
    signature = sign(signer, "join", b"a", b"bc")
    assert not verify(PUBLIC, signature, "commit", b"a", b"bc")
    assert not verify(PUBLIC, signature, "join", b"ab", b"c")
    assert not verify(PUBLIC, signature, "join", b"abc")
    assert not verify(PUBLIC, signature, "join", b"a", b"bc", b"")
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    assert not verify(stranger, signature, "join", b"a", b"bc")


def test_every_flipped_bit_of_a_signature_is_noticed() -> None:
    signature = sign(signer, "join", b"a")
    for position in range(8 * len(signature)):
        forged = bytearray(signature)
        forged[position // 8] ^= 1 << position % 8
        assert not verify(PUBLIC, bytes(forged), "join", b"a")


@pytest.mark.parametrize(
    ("public", "signature"), [(b"", bytes(64)), (PUBLIC, b""), (b"x" * 31, b"y")]
)
def test_garbage_is_no_signature(public: bytes, signature: bytes) -> None:
    assert not verify(public, signature, "join", b"a")
