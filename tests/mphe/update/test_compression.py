"""Compression: every coordinate is sent in a cycle, and what is not sent is not lost."""

import numpy as np
import pytest

from mphe.update.compression import Compression, coordinates, sent_length


@pytest.mark.parametrize(("size", "rate"), [(100, 0.25), (101, 0.3), (7, 0.9), (5, 1.0)])
def test_every_coordinate_is_sent_in_a_cycle_and_nothing_is_lost(size: int, rate: float) -> None:
    memory, sent = np.zeros(size, np.float32), np.zeros(size, np.float32)
    compression = Compression(size, rate)
    cycle = -(-size // sent_length(size, rate))
    for round in range(1, cycle + 1):
        memory = memory + np.ones(size, np.float32)
        values = compression.apply(memory, 3, round)
        assert len(values) == compression.length == sent_length(size, rate)
        sent += compression.undo(values, 3, round)
        left = compression.left(memory, 3, round)
        memory = np.zeros(size, np.float32) if left is None else left
    assert sent.min() >= 1
    assert np.array_equal(sent + memory, np.full(size, cycle))


def test_coordinates_are_those_of_the_seed_and_the_round_whatever_was_asked_before() -> None:
    compression, values = Compression(100, 0.25), np.arange(100, dtype=np.float32)
    for seed, round in ((1, 1), (1, 2), (2, 2), (1, 1), (1, 5), (1, 1)):
        chosen = coordinates(100, 0.25, seed, round)
        assert np.array_equal(compression.apply(values, seed, round), values[chosen])


def test_what_it_is_given_stays_as_it_was() -> None:
    values = np.ones(10, np.float32)
    left = Compression(10, 0.5).left(values, 0, 1)
    assert left is not None and left.sum() == 5 and values.sum() == 10
