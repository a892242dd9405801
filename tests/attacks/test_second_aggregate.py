"""A decryptor must not decrypt two aggregates of one round.

Attack: Σ over U, then Σ over U without one client; the difference is that client's update.
Claim: one aggregate (c1 and U) a round, whatever the attempt, also after the decryptor was started
 again. Weakened: every well-formed request is answered; a decryptor that is started again without
 its journal.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from mphe.arithmetic.ring import Integers
from mphe.errors import RefusedDecryption
from mphe.roles.rounds.decryptor import Decryptor, Memory
from mphe.scheme.decryption import Request
from mphe.wire.messages import Contribution
from tests.simulation import Simulation

VICTIM = 4


class insecure_Decryptor(Decryptor):
    """Remembers nothing of what it answered."""

    def _check_freshness(self, request: Request) -> None:
        pass


def isolate(simulation: Simulation, **second: object) -> tuple[Integers, Integers]:
    """Return what the server computes for the victim, and the victim's true update."""
    simulation.run_setup()
    updates = simulation.random_updates()
    made = {i: simulation.contribution(i, 1, u) for i, u in updates.items()}
    rest: dict[int, Contribution] = {i: c for i, c in made.items() if i != VICTIM}
    everybody = simulation.decrypt(made, simulation.request(made))
    without = simulation.decrypt(rest, simulation.request(rest, **second))
    assert everybody is not None and without is not None
    return everybody - without, updates[VICTIM]


@pytest.mark.parametrize("mode", ["hybrid", "direct"])
def test_two_aggregates_of_a_round_isolate_one_client(mode: str) -> None:
    simulation = Simulation(4, 2, encryption=mode, decryptor=insecure_Decryptor)
    seen, true = isolate(simulation)
    assert np.array_equal(seen, true)


@pytest.mark.parametrize("mode", ["hybrid", "direct"])
@pytest.mark.parametrize(
    "second", [{}, {"attempt": 2}, {"attempt": 2, "active": (1, 3)}, {"contributors": (1, 2, 3, 4)}]
)
def test_second_aggregate_of_a_round_is_refused(mode: str, second: dict[str, object]) -> None:
    simulation = Simulation(4, 2, encryption=mode)
    with pytest.raises(RefusedDecryption, match="another aggregate"):
        isolate(simulation, **second)


def restart(simulation: Simulation, journals: dict[int, Memory]) -> None:
    """Start all decryptors again, from their keys and from what their journals hold."""
    for index, keys in simulation.keys.items():
        memory = journals.get(index, Memory(confirming=False))
        simulation.decryptors[index] = Decryptor(keys, memory=memory)


def isolate_by_restart(
    simulation: Simulation, kept: bool, attempt: int = 1
) -> tuple[Integers, Integers]:
    """Return what `isolate` does when all decryptors are started again in between."""
    simulation.run_setup()
    journals: dict[int, Memory] = {}
    for index, keys in simulation.keys.items():
        simulation.decryptors[index] = Decryptor(
            keys,
            partial(journals.__setitem__, index) if kept else None,
            Memory(confirming=False),
        )
    updates = simulation.random_updates()
    made = {i: simulation.contribution(i, 1, u) for i, u in updates.items()}
    rest = {i: c for i, c in made.items() if i != VICTIM}
    everybody = simulation.decrypt(made, simulation.request(made))
    restart(simulation, journals)
    without = simulation.decrypt(rest, simulation.request(rest, attempt=attempt))
    assert everybody is not None and without is not None
    return everybody - without, updates[VICTIM]


def test_a_restart_without_a_journal_isolates_one_client() -> None:
    seen, true = isolate_by_restart(Simulation(4, 2), kept=False)
    assert np.array_equal(seen, true)


@pytest.mark.parametrize("attempt", [1, 2])
def test_second_aggregate_is_refused_after_a_restart(attempt: int) -> None:
    with pytest.raises(RefusedDecryption, match="another aggregate"):
        isolate_by_restart(Simulation(4, 2), kept=True, attempt=attempt)


def test_other_decryptors_cannot_be_had_for_the_second_aggregate_alone() -> None:
    """{1,2} answered for U; {3,4} answer once for the rest, but t = 3 sets always overlap."""
    simulation = Simulation(4, 3)
    simulation.run_setup()
    updates = simulation.random_updates()
    made = {i: simulation.contribution(i, 1, u) for i, u in updates.items()}
    rest = {i: c for i, c in made.items() if i != VICTIM}
    simulation.ask(simulation.request(made))
    for active in ((1, 2, 4), (1, 3, 4), (2, 3, 4)):
        with pytest.raises(RefusedDecryption):
            simulation.ask(simulation.request(rest, active=active))


def test_two_disjoint_quorums_isolate_a_client_in_default_mode() -> None:
    """Documentation: a server that lies to {3,4} gets both sums when 2t ≤ n, so a warning is due.

    `--verify_aggregate` requires 2t > n + c.
    """
    simulation = Simulation(4, 2)
    seen, true = isolate(simulation, active=(3, 4))
    assert np.array_equal(seen, true)
