"""Proof that a ring element is a·u + e for short u and e (docs/protocol.md, Verified aggregates).

Fiat-Shamir with aborts (Lyubashevsky 2009), monomial challenges (Benhamouda et al. 2014/889), and
the commitment without its low bits (Bai and Galbraith 2013/838), R times side by side:

    w_r = ⌊a·y_r / 2^24⌋,   i_1 … i_R = H(context, element, w_1 … w_R),   z_r = y_r + X^(i_r)·u

Whoever answers two different challenges knows short u', e' with 2·element = a·u' + e', since
2·(X^i - X^j)^-1 has coefficients in {-1, 0, 1}.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from mphe.arithmetic.noise import (
    CHALLENGE_BYTES,
    ERROR_PAIRS,
    HIDDEN_BITS,
    RESPONSE_BITS,
    proof_bytes,
    proof_repetitions,
)
from mphe.arithmetic.ring import Element, Integers, Limbs, Ring, Small, digit_width
from mphe.arithmetic.sampling import RandomSource, derive_seed
from mphe.errors import EncodingError
from mphe.scheme.rlwe import Opening

GAMMA = 1 << (RESPONSE_BITS - 1)
HIDDEN_BYTES = HIDDEN_BITS // 8
_TERNARY = 1


class ShortnessProof:
    """Proves and verifies for one ring and one reference polynomial a."""

    def __init__(self, ring: Ring, reference: Element) -> None:
        """Transform a, which is uniform from our own sampler, once.

        Raises:
            ParameterError: products with responses are not exact in this ring.
        """
        self.ring = ring
        self.repetitions = proof_repetitions(ring.degree)
        width = digit_width(ring.degree, sqrt(ring.degree) * GAMMA)
        self._reference = ring.spectrum(reference, width)

    @property
    def length(self) -> int:
        """Bytes of a proof."""
        return proof_bytes(self.ring.degree)

    def prove(
        self, element: Element, opening: Opening, context: bytes, source: RandomSource
    ) -> bytes:
        """Return a proof that is bound to a context; repeats until no response leaks.

        Args:
            element: a·u + e (L, N).
            opening: u and e.
            context: what else the proof must not be moved away from.
            source: of the masks y.
        """
        shape = (self.repetitions, self.ring.degree)
        while True:
            words = np.frombuffer(source.bytes(4 * shape[0] * shape[1]), "<u4")
            masks: Integers = (words & (2 * GAMMA - 1)).astype(np.int64).reshape(shape) - GAMMA
            images = [self.ring.reduce(self._times_reference(Small(mask))) for mask in masks]
            seed = self._challenge(element, context, images)
            exponents = challenge_exponents(self.ring.degree, self.repetitions, seed)
            responses = Small(masks + _rotations(opening.secret, exponents))
            if _within(responses, GAMMA, _TERNARY) and _keeps_high_part(
                images, _rotations(opening.error, exponents)
            ):
                return seed + _pack(responses + GAMMA)

    def verify(self, element: Element, context: bytes, proof: bytes) -> None:
        """Check a proof.

        Raises:
            EncodingError: it is malformed, or no proof for this element and context.
        """
        if len(proof) != self.length:
            raise EncodingError(f"a proof of {len(proof)} bytes where {self.length} belong")
        seed, packed = proof[:CHALLENGE_BYTES], proof[CHALLENGE_BYTES:]
        unpacked = _unpack(packed).reshape(self.repetitions, self.ring.degree)
        responses = Small(unpacked - GAMMA)
        if not _within(responses, GAMMA, _TERNARY):
            raise EncodingError("a response of the proof is too large")
        exponents = challenge_exponents(self.ring.degree, self.repetitions, seed)
        images = []
        for response, exponent in zip(responses, exponents, strict=True):
            # a·z - X^i·element = a·y - X^i·e
            image = self._times_reference(Small(response)) - rotate(element, exponent)
            images.append(self.ring.reduce(Limbs(image)))
        if self._challenge(element, context, images) != seed:
            raise EncodingError("the proof does not fit")

    def _times_reference(self, small: Small) -> Limbs:
        return self.ring.multiply_small(self.ring.transform(small), self._reference)

    def _challenge(self, element: Element, context: bytes, images: list[Element]) -> bytes:
        """Return the hash of the statement and of the commitments' high parts."""
        high = (self.ring.to_bytes(image, HIDDEN_BYTES) for image in images)
        return derive_seed("shortness proof", context, self.ring.to_bytes(element), *high)


def challenge_exponents(degree: int, repetitions: int, seed: bytes) -> list[int]:
    """Return i_1 … i_R, uniform in [0, 2N)."""
    words = RandomSource(seed).words(repetitions)
    return [int(word) % (2 * degree) for word in words]


def rotate(x: Integers, exponent: int) -> Integers:
    """Return X^exponent·x for x (..., N) and 0 ≤ exponent < 2N, as signed coefficients."""
    degree = x.shape[-1]
    shift = exponent % degree
    rotated = np.concatenate((-x[..., degree - shift :], x[..., : degree - shift]), axis=-1)
    return rotated if exponent < degree else -rotated


def _rotations(x: Small, exponents: list[int]) -> Integers:
    return np.stack([rotate(x, exponent) for exponent in exponents])


def _within(values: Integers, half: int, margin: int) -> bool:
    """Return whether all of [-half, half) keep a margin from its ends.

    Then they are as likely for every secret up to the margin: that is what hides it.
    """
    return bool(values.min() >= margin - half and values.max() < half - margin)


def _keeps_high_part(images: list[Element], errors: Integers) -> bool:
    """Return whether a·y - X^i·e has the high part of a·y, with a margin that hides e."""
    low = np.stack([image[0] for image in images]) & ((1 << HIDDEN_BITS) - 1)
    half = 1 << (HIDDEN_BITS - 1)
    return _within(low - errors - half, half, ERROR_PAIRS)


def _pack(values: Integers) -> bytes:
    """Return values of 20 bits, two in five bytes."""
    pairs = values.reshape(-1, 2)
    words = (pairs[:, 0] | pairs[:, 1] << RESPONSE_BITS).astype("<u8")
    return words.view(np.uint8).reshape(-1, 8)[:, : 2 * RESPONSE_BITS // 8].tobytes()


def _unpack(data: bytes) -> Integers:
    """Read what `_pack` wrote, int64 (count,)."""
    width = 2 * RESPONSE_BITS // 8
    padded = np.zeros((len(data) // width, 8), np.uint8)
    padded[:, :width] = np.frombuffer(data, np.uint8).reshape(-1, width)
    words = padded.view("<u8").astype(np.int64)
    first, second = words & ((1 << RESPONSE_BITS) - 1), words >> RESPONSE_BITS
    return np.concatenate((first, second), 1).reshape(-1)
