"""Encapsulation of ML-KEM-768 from given randomness (FIPS 203, algorithms 13, 14 and 17).

Libraries draw the randomness of an encapsulation themselves. Known answers and simulations need
one that is the same every time; what it makes is opened by the library as any other.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha3_256, sha3_512, shake_128, shake_256

import numpy as np
from numpy.typing import NDArray

Q, K = 3329, 3
Vector = NDArray[np.int64]


@cache
def _roots() -> Vector:
    """Return γ_i = 17^(2·bitrev7(i) + 1) for i in 0..127."""
    return np.array([pow(17, 2 * int(f"{i:07b}"[::-1], 2) + 1, Q) for i in range(128)])


@cache
def _transform() -> Vector:
    """Return the matrix γ_i^j; the transform takes even and odd coefficients by themselves."""
    return np.array([[pow(int(root), j, Q) for j in range(128)] for root in _roots()])


@cache
def _inverse() -> Vector:
    """Return γ_i^-j / 128."""
    scale = pow(128, -1, Q)
    return np.array([[scale * pow(int(root), -j, Q) for root in _roots()] for j in range(128)]) % Q


def _product(left: Vector, right: Vector) -> Vector:
    """Return the product of transformed polynomials (…, 128, 2)."""
    low = left[..., 0] * right[..., 0] + left[..., 1] * right[..., 1] % Q * _roots()
    high = left[..., 0] * right[..., 1] + left[..., 1] * right[..., 0]
    return np.stack((low, high), axis=-1) % Q


def _unpack(data: bytes, bits: int) -> Vector:
    """Return little-endian numbers of so many bits."""
    digits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").reshape(-1, bits)
    return digits.astype(np.int64) @ (1 << np.arange(bits))


def _pack(values: Vector, bits: int) -> bytes:
    """Return numbers rounded to so many bits: ⌈2^bits/q·x⌋."""
    rounded = ((values.reshape(-1) << bits) + Q // 2) // Q % (1 << bits)
    digits = (rounded[:, None] >> np.arange(bits)) & 1
    return np.packbits(digits.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


def _uniform(seed: bytes) -> Vector:
    """Return a transformed polynomial (128, 2), by rejection."""
    values = _unpack(shake_128(seed).digest(3 * 504), 12)
    return values[values < Q][:256].reshape(128, 2)


def _binomial(seed: bytes, number: int) -> Vector:
    """Return a polynomial (128, 2) of differences of two bits and two bits."""
    digits = _unpack(shake_256(seed + bytes([number])).digest(128), 1).reshape(256, 4)
    differences: Vector = digits[:, :2].sum(1) - digits[:, 2:].sum(1)
    return differences.reshape(128, 2)


def encapsulate(public: bytes, message: bytes) -> tuple[bytes, bytes]:
    """Return the secret and the ciphertext that 32 bytes of randomness lead to."""
    both = sha3_512(message + sha3_256(public).digest()).digest()
    secret, seed = both[:32], both[32:]
    key, reference = _unpack(public[: 384 * K], 12).reshape(K, 128, 2), public[384 * K :]
    matrix = np.array(
        [[_uniform(reference + bytes([i, j])) for j in range(K)] for i in range(K)]
    )  # row i of the transposed matrix
    draws = np.array([_binomial(seed, number) for number in range(2 * K + 1)])
    y = _transform() @ draws[:K] % Q
    u = _inverse() @ (_product(matrix, y).sum(1) % Q) + draws[K : 2 * K]
    v = _inverse() @ (_product(key, y).sum(0) % Q) + draws[2 * K]
    v += _unpack(message, 1).reshape(128, 2) * ((Q + 1) // 2)
    return secret, _pack(u % Q, 10) + _pack(v % Q, 4)
