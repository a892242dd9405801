"""A dealer whose shares lie on no polynomial must be noticed before training.

Attack: the shares for {1, 2} reconstruct s_i, the one for 4 does not. Confirming the key with one
active set passes; the first round in which 4 has to step in fails or gives garbage. Claim: the
key is confirmed by {1..t-1} ∪ {j} for every j ≥ t (docs/protocol.md, Setup, 6), so 4 is found out.
Weakened: one set only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mphe.arithmetic.ring import Element
from mphe.arithmetic.sampling import uniform
from mphe.roles.rounds.outcomes import Abandoned, Summed
from mphe.roles.setup.client import Committed, SetupClient
from mphe.roles.setup.server import SetupDone
from mphe.scheme.sealing import Encapsulated, PairwiseKeys
from mphe.wire.messages import DecryptionRequest
from tests.simulation import SeededSource, Simulation

DEALER, VICTIM = 2, 4


class InconsistentDealer(SetupClient):
    """Gives VICTIM a share that has nothing to do with its secret."""

    def _seal(
        self,
        stage: Committed,
        pairwise: PairwiseKeys,
        share: Element | None,
        shared: Encapsulated,
    ) -> bytes:
        if shared.peer == VICTIM:
            share = uniform(SeededSource("not on the polynomial"), self.ring)
        return super()._seal(stage, pairwise, share, shared)


def simulate() -> tuple[Simulation, SetupDone]:
    """Run the set-up with the dealer."""
    simulation = Simulation(4, 2, clients={DEALER: InconsistentDealer})
    end = simulation.run_setup()
    assert isinstance(end, SetupDone)
    return simulation, end


def insecure_confirmation_with_one_set(simulation: Simulation) -> bool:
    """Try the key with the first active set, and take all decryptors on trust if that works."""
    updates = simulation.random_updates(seed=9)
    made = {i: simulation.contribution(i, 1, u) for i, u in updates.items()}
    total = simulation.decrypt(made, simulation.request(made, active=(1, 2)))
    passed = total is not None and np.array_equal(total, sum(updates.values()))
    assert simulation.aggregator is not None
    simulation.aggregator.session = replace(simulation.session, decryptors=(1, 2, 3, 4))
    simulation.aggregator.resume_at(1)
    return passed


@pytest.mark.parametrize("t", [2, 3])
def test_honest_shares_confirm_every_decryptor(t: int) -> None:
    simulation = Simulation(4, t)
    end = simulation.run_setup()
    assert isinstance(end, SetupDone) and end.session.decryptors == (1, 2, 3, 4)


def test_confirmation_with_one_set_misses_the_dealer_until_the_victim_must_decrypt() -> None:
    simulation, _ = simulate()
    assert insecure_confirmation_with_one_set(simulation)
    updates = simulation.random_updates()
    assert isinstance(simulation.run_round(updates), Summed)
    simulation.vanish(1)
    simulation.vanish(2)
    # Only {3, 4} are left, and they do not decrypt.
    assert isinstance(simulation.run_round(updates, present=[3, 4]), Abandoned)


def test_confirmation_with_every_decryptor_finds_the_victim_before_training() -> None:
    simulation, end = simulate()
    assert end.session.decryptors == (1, 2, 3)
    updates = simulation.random_updates()
    simulation.vanish(1)
    total = simulation.run_round({i: updates[i] for i in (2, 3, 4)})
    assert isinstance(total, Summed)
    assert np.array_equal(total.total, updates[2] + updates[3] + updates[4])
    asked = {r for _, r, m in simulation.log if isinstance(m, DecryptionRequest) and m.round}
    assert asked == {2, 3}
