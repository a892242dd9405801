"""mphe.update.streams: no two uses of the public seed draw the same numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fl.data.partition import batch
from mphe.update.streams import Stream, generator


def test_every_stream_is_another() -> None:
    drawn = [generator(stream, 5, 1, 2).bytes(16) for stream in Stream]
    assert len(set(drawn)) == len(Stream) >= 7


@pytest.mark.parametrize("index", [1, 3])
def test_the_batch_and_the_rounding_of_a_client_are_independent(index: int) -> None:
    """Weakened: with one number for both, the batch is what the rounding's stream draws."""
    x = np.arange(100)
    for seed, round in itertools.product((0, 9), (1, 7)):
        chosen, _ = batch(x, x, round, 20, seed, index)
        same = generator(Stream.BATCH, seed, index, round).choice(100, 20, replace=False)
        other = generator(Stream.ROUNDING, seed, index, round).choice(100, 20, replace=False)
        assert np.array_equal(chosen, same) and not np.array_equal(chosen, other)
