"""Signatures, sealed shares and pairwise keys, from the package cryptography.

A sealed share is ChaCha20-Poly1305 under HKDF-SHA256(X25519(i, j), session, "seal", i, j); the
server relays it and can read none of it.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mphe.arithmetic.sampling import RandomSource, derive_seed
from mphe.errors import EncodingError

KEY_BYTES = 32
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


class PairwiseKeys:
    """One client's X25519 key and what it shares with the others; fresh for each session."""

    def __init__(self, index: int, private: bytes) -> None:
        self.index = index
        self.private = private
        self._private = X25519PrivateKey.from_private_bytes(private)
        self.public = self._private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, index: int, source: RandomSource) -> PairwiseKeys:
        """Return a fresh key."""
        return cls(index, source.bytes(KEY_BYTES))

    def _derive(self, peer_public: bytes, session: bytes, label: str, i: int, j: int) -> bytes:
        """Return HKDF-SHA256(X25519(i, j), session, label, i, j).

        Raises:
            EncodingError: the peer's public key is not a proper point.
        """
        try:
            peer = X25519PublicKey.from_public_bytes(peer_public)
            shared = self._private.exchange(peer)
        except ValueError as error:
            raise EncodingError("an exchange key is not a proper X25519 point") from error
        context = label.encode() + i.to_bytes(4, "big") + j.to_bytes(4, "big")
        return HKDF(SHA256(), KEY_BYTES, salt=session, info=context).derive(shared)

    def seal(self, receiver: int, peer_public: bytes, session: bytes, text: bytes) -> bytes:
        """Encrypt to one receiver."""
        key = self._derive(peer_public, session, "seal", self.index, receiver)
        context = _associated(session, self.index, receiver)
        return ChaCha20Poly1305(key).encrypt(NONCE, text, context)

    def open(self, sender: int, peer_public: bytes, session: bytes, sealed: bytes) -> bytes:
        """Decrypt what `sender` sealed to us.

        Raises:
            EncodingError: it was not sealed by that sender for us in this session.
        """
        key = self._derive(peer_public, session, "seal", sender, self.index)
        try:
            context = _associated(session, sender, self.index)
            return ChaCha20Poly1305(key).decrypt(NONCE, sealed, context)
        except InvalidTag as error:
            raise EncodingError(f"the share sealed by client {sender} does not open") from error

    def zero_share_key(self, peer: int, peer_public: bytes, session: bytes) -> bytes:
        """Return the key of the masks shared with a peer; the same on both sides."""
        low, high = sorted((self.index, peer))
        return self._derive(peer_public, session, "zero-share", low, high)


def _associated(session: bytes, sender: int, receiver: int) -> bytes:
    """Return the associated data of a sealed share."""
    return session + sender.to_bytes(4, "big") + receiver.to_bytes(4, "big")
