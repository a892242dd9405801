"""Rotation: updates are spread evenly over their values before they are rounded.

A randomised Hadamard transform (Ailon and Chazelle 2009; for federated learning Suresh et al.,
arXiv 1611.00429): y = H·D·x, where D holds public random signs and H is orthonormal. It is
linear, so it commutes with the sum, and keeps the L2 norm. No value of y is much larger than
the others, so a few bits are spent on all of them and not on the range of a single one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mphe.update.quantise import Vector
from mphe.update.streams import Stream, generator

LONGEST_BLOCK = 1 << 13
# Of the length, at most so much is padding.
PADDING = 1 / 64


def block_length(size: int) -> int:
    """Return the longest power of two whose multiples leave little padding."""
    block = LONGEST_BLOCK
    while -size % block > PADDING * size:
        block //= 2
    return block


def padded_length(size: int) -> int:
    """Return the values of a rotated vector of `size` values."""
    return size + -size % block_length(size)


def hadamard(rows: Vector) -> Vector:
    """Transform float32 (2^k, m) along its first axis; orthonormal, and its own inverse."""
    block, count = rows.shape
    half = 1
    while half < block:
        pairs = rows.reshape(block // (2 * half), 2, half * count)
        rows = np.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), axis=1)
        half *= 2
    return rows.reshape(block, count) * np.float32(1 / math.sqrt(block))


class Rotation:
    """Of vectors of one size; every round has signs of its own, from the public seed."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._block = block_length(size)
        self.length = padded_length(size)

    def apply(self, values: NDArray[Any], seed: int, round: int) -> Vector:
        """Return float32 (length,) of floats (size,)."""
        padded = np.zeros(self.length, np.float32)
        padded[: self._size] = values
        # Neighbours go to different blocks, so that no block gets all of a layer.
        rows = (padded * self._signs(seed, round)).reshape(self._block, -1)
        return hadamard(rows).reshape(-1)

    def undo(self, values: Vector, seed: int, round: int) -> Vector:
        """Return what `apply` was given, float32 (size,)."""
        rows = values.reshape(self._block, -1)
        return (hadamard(rows).reshape(-1) * self._signs(seed, round))[: self._size]

    def _signs(self, seed: int, round: int) -> Vector:
        rng = generator(Stream.ROTATION, seed, round)
        signs: Vector = rng.integers(0, 2, self.length, np.int8).astype(np.float32)
        return 2 * signs - 1
