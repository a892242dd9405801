"""Every random choice of the protocol, from one keyed stream (docs/protocol.md, Sampling).

The samplers are deterministic functions of a stream; only `RandomSource.from_system` asks the
operating system. Their running time does not depend on secrets except through rejection.
"""

from __future__ import annotations

import hashlib
from math import pi

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from mphe.arithmetic.noise import ERROR_PAIRS, KEY_PAIRS, PART_BITS, smudging_widths
from mphe.arithmetic.ring import Element, Integers, Limbs, Ring, Small
from mphe.arithmetic.rings import LIMB_BITS
from mphe.arithmetic.system import System
from mphe.errors import ParameterError

SEED_BYTES = 32


class RandomSource:
    """AES-256-CTR keystream under a 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        """Key the stream.

        Raises:
            ParameterError: the seed is not 32 bytes long.
        """
        if len(seed) != SEED_BYTES:
            raise ParameterError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        self._stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()

    @classmethod
    def from_system(cls) -> RandomSource:
        """Return a stream keyed by the operating system."""
        return cls(System().urandom(SEED_BYTES))

    def bytes(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        return self._stream.update(bytes(count))

    def words(self, count: int) -> NDArray[np.uint64]:
        """Return the next `count` 64-bit words, uint64 (count,)."""
        return np.frombuffer(self.bytes(8 * count), "<u8")


def derive_seed(domain: str, *parts: bytes) -> bytes:
    """Return SHA-256 over a domain name and length-prefixed parts: no two inputs collide."""
    digest = hashlib.sha256()
    for part in (domain.encode(), *parts):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def ternary(source: RandomSource, count: int) -> Small:
    """Return uniform values of {-1, 0, 1}, int64 (count,)."""
    accepted = np.empty(0, np.uint8)
    while accepted.size < count:
        drawn = np.frombuffer(source.bytes(count + 64), np.uint8)
        # 255 = 3·85: without it the residues are equally likely.
        accepted = np.concatenate((accepted, drawn[drawn < 255]))
    residues: Integers = (accepted[:count] % 3).astype(np.int64)
    return Small(residues - 1)


def centred_binomial(source: RandomSource, count: int, pairs: int) -> Small:
    """Return sums of `pairs` differences of two bits, int64 (count,), variance pairs/2."""
    mask = np.uint64((1 << pairs) - 1)
    words = source.words(2 * count)
    counts: Integers = np.bitwise_count(words & mask).astype(np.int64)
    return Small(counts[:count] - counts[count:])


def error(source: RandomSource, count: int) -> Small:
    """Return RLWE errors, σ = 3.24, int64 (count,)."""
    return centred_binomial(source, count, ERROR_PAIRS)


def one_time(source: RandomSource, count: int) -> Small:
    """Return coefficients of a one-time key or of its errors, σ = 4.53, int64 (count,)."""
    return centred_binomial(source, count, KEY_PAIRS)


def uniform(source: RandomSource, ring: Ring) -> Element:
    """Return a uniform element (L, N), by rejection against q."""
    count = ring.limbs * ring.degree
    words = np.frombuffer(source.bytes(4 * count), "<u4")
    element = Limbs(words.reshape(ring.limbs, ring.degree).astype(np.int64))
    rejected = ring.not_below_modulus(element)
    while rejected is not None:
        fresh = np.frombuffer(source.bytes(4 * ring.limbs * int(rejected.sum())), "<u4")
        element[:, rejected] = fresh.reshape(ring.limbs, -1)
        rejected = ring.not_below_modulus(element)
    return Element(element)


def expand(ring: Ring, seed: bytes, name: str, index: int = 0) -> Element:
    """Return the common reference polynomial of that name and index."""
    label = name.encode() + b"/" + ring.parameters.name.encode()
    derived = derive_seed("reference", seed, label, index.to_bytes(4, "big"))
    return uniform(RandomSource(derived), ring)


def _gaussian_pairs(
    source: RandomSource, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two independent standard Gaussians a position (Box and Muller 1958).

    The uniform under the logarithm has 128 bits, so that tails reach 13.3σ (2^-128).
    """
    high, low, angle = source.words(3 * count).reshape(3, count)
    radius = high * 2.0**-64 + (low + 1.0) * 2.0**-128
    np.log(np.minimum(radius, 1.0), out=radius)
    radius *= -2.0
    np.sqrt(radius, out=radius)
    theta = (angle >> np.uint64(11)) * (2.0**-53 * 2 * pi)
    return radius * np.cos(theta), radius * np.sin(theta)


def add_smudging(source: RandomSource, limbs: Limbs, deviation: float) -> None:
    """Add a discrete Gaussian of deviation σ to signed limbs (L, n), in place.

    Σ x_i·2^(16·i) with Gaussian integers x_i: each part is wider than the next unit by the
    smoothing factor, so the sum is the wide discrete Gaussian (Peikert 2010/088, theorem 3.1). A
    double scaled to σ > 2^53 would have zeros in its low bits, and the noise that is to be hidden
    would show there.

    Raises:
        ValueError: σ cannot be sampled; a plan with such a σ is never made.
    """
    widths = smudging_widths(deviation)
    for part in range(0, len(widths), 2):
        for offset, normal in enumerate(_gaussian_pairs(source, limbs.shape[-1])):
            if part + offset < len(widths):
                limb, shift = divmod(PART_BITS * (part + offset), LIMB_BITS)
                integers = np.rint(normal * widths[part + offset]).astype(np.int64)
                limbs[limb] += integers << shift
