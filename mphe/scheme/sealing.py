"""Signatures, sealed shares and pairwise keys, from the package cryptography.

A sealed share is ChaCha20-Poly1305 under a key of two secrets, of which one suffices:

    HKDF-SHA256(X25519(i, j) ‖ ss_ij, salt, label ‖ i ‖ j ‖ SHA-256(ct_ij))

where (ss_ij, ct_ij) is what i encapsulated to the ML-KEM-768 key of j. Who records a set-up and
breaks X25519 later still lacks ss_ij. The server relays it all and can read none of it.

A changed ct_ij yields another secret and no error; that its seal does not open shows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mphe.arithmetic.sampling import RandomSource, derive_seed
from mphe.arithmetic.system import System
from mphe.errors import EncodingError

KEY_BYTES = 32
KEM_SEED_BYTES = 64
ENCAPSULATION_KEY_BYTES = 1184
ENCAPSULATION_BYTES = 1088
TAG_BYTES = 16
# A directional key seals one message, so its nonce may be constant.
NONCE = bytes(12)


def sign(key: Ed25519PrivateKey, purpose: str, *parts: bytes) -> bytes:
    """Return the Ed25519 signature of a purpose and its parts."""
    return key.sign(derive_seed("signature/" + purpose, *parts))


def verify(public_key: bytes, signature: bytes, purpose: str, *parts: bytes) -> bool:
    """Return whether `sign` made this signature under the key of 32 bytes."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(signature, derive_seed("signature/" + purpose, *parts))
    except (InvalidSignature, ValueError):
        return False
    return True


def is_exchange_key(public: bytes) -> bool:
    """Return whether these bytes are an X25519 key that yields a secret with every other."""
    try:
        peer = X25519PublicKey.from_public_bytes(public)
        # Any private key shows a point of small order: the result is zero, and refused.
        X25519PrivateKey.from_private_bytes(bytes(KEY_BYTES)).exchange(peer)
    except ValueError:
        return False
    return True


def is_encapsulation_key(public: bytes) -> bool:
    """Return whether these bytes are a public key of ML-KEM-768."""
    try:
        MLKEM768PublicKey.from_public_bytes(public)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Encapsulated:
    """A secret that one client encapsulated to another, and what its ciphertext was.

    Attributes:
        peer: the other one.
        secret: ss, 32 bytes.
        digest: SHA-256 of ct.
    """

    peer: int
    secret: bytes
    digest: bytes


def encapsulate(system: System, peer: int, public: bytes) -> tuple[Encapsulated, bytes]:
    """Return a fresh secret for the ML-KEM-768 key of a peer, and its ciphertext."""
    secret, ciphertext = system.encapsulate(public)
    return Encapsulated(peer, secret, sha256(ciphertext).digest()), ciphertext


class PairwiseKeys:
    """One client's keys of X25519 and ML-KEM-768, fresh for each session.

    Attributes:
        index: of the client.
        private, seed: the private halves, 32 and 64 bytes.
        public, encapsulation_key: the public ones, 32 and 1,184 bytes.
    """

    def __init__(self, index: int, private: bytes, seed: bytes) -> None:
        self.index = index
        self.private = private
        self.seed = seed
        self._private = X25519PrivateKey.from_private_bytes(private)
        self._kem = MLKEM768PrivateKey.from_seed_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()
        self.encapsulation_key = self._kem.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, index: int, source: RandomSource) -> PairwiseKeys:
        """Return fresh keys."""
        return cls(index, source.bytes(KEY_BYTES), source.bytes(KEM_SEED_BYTES))

    def decapsulate(self, peer: int, ciphertext: bytes) -> Encapsulated:
        """Return the secret that a peer encapsulated to us, or one that nobody has.

        Raises:
            EncodingError: a ciphertext has another length.
        """
        try:
            secret = self._kem.decapsulate(ciphertext)
        except ValueError as error:
            raise EncodingError(f"client {peer} sent no encapsulation of ML-KEM-768") from error
        return Encapsulated(peer, secret, sha256(ciphertext).digest())

    def _derive(
        self, peer_public: bytes, salt: bytes, label: str, ends: Iterable[int], shared: Encapsulated
    ) -> bytes:
        """Return HKDF-SHA256(X25519(i, j) ‖ ss_ij, salt, label ‖ i ‖ j ‖ SHA-256(ct_ij)).

        Raises:
            EncodingError: the peer's public key is not a proper point.
        """
        try:
            peer = X25519PublicKey.from_public_bytes(peer_public)
            exchanged = self._private.exchange(peer)
        except ValueError as error:
            raise EncodingError("an exchange key is not a proper X25519 point") from error
        context = label.encode() + b"".join(end.to_bytes(4, "big") for end in ends)
        info = context + shared.digest
        return HKDF(SHA256(), KEY_BYTES, salt=salt, info=info).derive(exchanged + shared.secret)

    def seal(self, peer_public: bytes, session: bytes, text: bytes, shared: Encapsulated) -> bytes:
        """Encrypt to the one that we encapsulated to."""
        key = self._derive(peer_public, session, "seal", (self.index, shared.peer), shared)
        context = _associated(session, self.index, shared.peer)
        return ChaCha20Poly1305(key).encrypt(NONCE, text, context)

    def open(
        self, peer_public: bytes, session: bytes, sealed: bytes, shared: Encapsulated
    ) -> bytes:
        """Decrypt what the one that encapsulated to us sealed to us.

        Raises:
            EncodingError: it was not sealed by that client for us in this session.
        """
        key = self._derive(peer_public, session, "seal", (shared.peer, self.index), shared)
        try:
            context = _associated(session, shared.peer, self.index)
            return ChaCha20Poly1305(key).decrypt(NONCE, sealed, context)
        except InvalidTag as error:
            raise EncodingError(
                f"the share sealed by client {shared.peer} does not open"
            ) from error

    def zero_share_key(self, peer_public: bytes, name: bytes, shared: Encapsulated) -> bytes:
        """Return the key of the masks of a pair, of what its lower index encapsulated.

        It is the same on both sides.
        """
        ends = sorted((self.index, shared.peer))
        return self._derive(peer_public, name, "zero-share", ends, shared)


def _associated(session: bytes, sender: int, receiver: int) -> bytes:
    """Return the associated data of a sealed share."""
    return session + sender.to_bytes(4, "big") + receiver.to_bytes(4, "big")
