"""Fewer values a round: all clients send the same coordinates, chosen by the public seed.

Choosing coordinates is linear, so it commutes with the encrypted sum. What a client did not send
stays in its memory and goes out when its coordinates come round (error feedback, Stich et al.,
arXiv 1809.07599): every coordinate is sent once in ceil(1/rate) rounds.
"""

import math

import numpy as np
from numpy.typing import NDArray

from mphe.update.streams import Stream, generator

Vector = NDArray[np.float32]
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


def compress(update: Vector, memory: Vector, chosen: Indices | slice) -> tuple[Vector, Vector]:
    """Return the values to send and the memory afterwards, should they be counted.

    Args:
        update: of this round, float32 (size,).
        memory: what earlier rounds left, float32 (size,).
        chosen: coordinates of this round.
    """
    left = memory + update
    sent = left[chosen].copy()
    left[chosen] = 0
    return sent, left


def expand(values: Vector, size: int, chosen: Indices | slice) -> Vector:
    """Return values at their coordinates and zeros elsewhere, float32 (size,)."""
    full = np.zeros(size, np.float32)
    full[chosen] = values
    return full
