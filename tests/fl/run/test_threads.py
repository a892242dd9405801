"""fl.run.threads: blocks run side by side, and the bytes do not depend on it."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from fl.run.threads import block_map
from mphe.roles.rounds.aggregator import Aggregator
from mphe.roles.rounds.contributor import Contributor
from mphe.roles.rounds.outcomes import Summed
from mphe.scheme.encryptor import Encryptor
from tests.patience import scaled
from tests.simulation import Simulation

LENGTH = 300_000  # several blocks


def simulate(threads: int) -> Simulation:
    simulation = Simulation(3, 2, LENGTH, label="threads")
    simulation.run_setup()
    for index, keys in simulation.keys.items():
        encryptor = Encryptor(keys.plan, keys.key, keys.crs_seed, block_map(threads))
        hedge = simulation.hedge(f"encryption/{index}")
        simulation.contributors[index] = Contributor(
            index, encryptor, transcript=keys.transcript, hedge=hedge
        )
    simulation.aggregator = Aggregator(simulation.session, block_map(threads))
    return simulation


def test_contributions_and_sums_are_the_same_with_any_number_of_threads() -> None:
    seen = []
    for threads in (1, 2, 5):
        simulation = simulate(threads)
        assert simulation.plan.payload is not None
        assert simulation.plan.payload.blocks > 1
        updates = simulation.random_updates()
        outcome = simulation.run_round(updates)
        assert isinstance(outcome, Summed)
        assert np.array_equal(outcome.total, np.sum(list(updates.values()), axis=0))
        seen.append([message for *_, message in simulation.log])
    assert seen[0] == seen[1] == seen[2]


def backwards(function: Callable[[int], Any], blocks: Iterable[int]) -> list[Any]:
    """Compute the last block first; return the results in order."""
    return [function(block) for block in reversed(list(blocks))][::-1]


def test_the_order_of_the_blocks_does_not_show() -> None:
    simulation = simulate(1)
    keys, values = simulation.keys[1], np.arange(LENGTH) % 65536
    one, two = (
        Encryptor(simulation.plan, keys.key, keys.crs_seed, blocks).encrypt(
            values, simulation.source("order")
        )
        for blocks in (map, backwards)
    )
    assert one == two


def test_blocks_run_on_as_many_threads_as_asked() -> None:
    together = threading.Barrier(3, timeout=scaled(20))

    def meet(block: int) -> int:
        together.wait()
        return block

    assert list(block_map(3)(meet, range(6))) == list(range(6))


def test_one_thread_is_the_callers_own() -> None:
    caller = threading.current_thread()
    found = block_map(1)(lambda _: threading.current_thread() is caller, range(4))
    assert list(found) == [True] * 4


def test_an_error_in_a_block_reaches_the_caller() -> None:
    def fail(block: int) -> int:
        raise ValueError(f"block {block}")

    with pytest.raises(ValueError, match="block 0"):
        list(block_map(2)(fail, range(4)))
