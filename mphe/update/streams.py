"""Public random streams that all parties draw alike from one seed; cryptography never uses them."""

from __future__ import annotations

from enum import IntEnum, unique

import numpy as np


@unique
class Stream(IntEnum):
    """What a stream is for; no two uses of a seed may draw the same numbers."""

    TEST_SPLIT = 1
    PARTITION = 2
    BATCH = 3
    COORDINATES = 4
    DROPOUT = 5
    ROTATION = 6
    ROUNDING = 7


def generator(stream: Stream, seed: int, *parts: int) -> np.random.Generator:
    """Return the generator of one use: `parts` are its client, round and step, as far as it has."""
    return np.random.default_rng([seed, stream, *parts])
