"""Fewer values a round: all clients send the same coordinates, chosen by the public seed.

Choosing coordinates is linear, so it commutes with the encrypted sum. What a client did not send
stays in its memory and goes out when its coordinates come round (error feedback, Stich et al.,
arXiv 1809.07599): every coordinate is sent once in ceil(1/rate) rounds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mphe.update.quantise import Vector
from mphe.update.streams import Stream, generator

Indices = NDArray[np.int64]


def sent_length(size: int, rate: float) -> int:
    """Return how many of `size` values a client sends in a round."""
    return size if rate == 1 else max(1, math.ceil(size * rate))


def coordinates(size: int, rate: float, seed: int, round: int) -> Indices | slice:
    """Return the coordinates of a round, int64 (sent_length,), or a slice when all are sent.

    A permutation is cut into pieces, one a round, and drawn anew when it is used up.
    """
    count = sent_length(size, rate)
    if count == size:
        return slice(None)
    cycle = -(-size // count)
    epoch, piece = divmod(round - 1, cycle)
    order = generator(Stream.COORDINATES, seed, epoch).permutation(size)
    start = min(piece * count, size - count)  # the last piece overlaps the one before
    return order[start : start + count]


class Compression:
    """Of vectors of one size, at one rate: what is sent, what is left, and the way back."""

    def __init__(self, size: int, rate: float) -> None:
        self.length = sent_length(size, rate)
        self._size = size
        self._rate = rate
        self._last: tuple[int, int, Indices | slice] | None = None

    def apply(self, values: NDArray[Any], seed: int, round: int) -> NDArray[Any]:
        """Return the values of a round's coordinates, (length,)."""
        return values[self._coordinates(seed, round)]

    def left(self, values: Vector, seed: int, round: int) -> Vector | None:
        """Return the values that are not sent and zeros for those that are; None if all are."""
        if self.length == self._size:
            return None
        kept = values.copy()
        kept[self._coordinates(seed, round)] = 0
        return kept

    def undo(self, values: Vector, seed: int, round: int) -> Vector:
        """Return values at their coordinates and zeros elsewhere, float32 (size,)."""
        if self.length == self._size:
            return values
        full = np.zeros(self._size, np.float32)
        full[self._coordinates(seed, round)] = values
        return full

    def _coordinates(self, seed: int, round: int) -> Indices | slice:
        """Draw a round's coordinates once: a permutation of all values takes long."""
        last = self._last
        if last is None or last[:2] != (seed, round):
            last = seed, round, coordinates(self._size, self._rate, seed, round)
            self._last = last
        return last[2]
