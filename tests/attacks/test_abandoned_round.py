"""Attack: two sums of updates of one model, one of which the server never got.

The server and two clients follow the protocol and pool what they see. The round's sum is not had:
too few decryptors are left after the first has answered. The pool can finish its answer set, since
the two know their own shares of it, so it has the sum. A next round on the same model without
client 1 is decrypted, and the difference is the update of client 1.

Claim: no round begins while the sum may still be had, and once it is given up the next contributors
differ from its by nobody or by at least min_contributors. Where nobody comes back in time, that is
said, and the attack works.

Weakened: the server abandons such a round at once, as if nothing had been decrypted.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mphe.arithmetic.ring import Integers
from mphe.errors import LocalProtocolError
from mphe.roles.machine import Output
from mphe.roles.rounds import overlap
from mphe.roles.rounds.aggregator import MAX_WITHHELD, Aggregator, AggregatorState
from mphe.roles.rounds.outcomes import Abandoned, Overlap, Summed
from mphe.wire.messages import SERVER, Contribution, DecryptionShare, Message
from tests.protocol.support import ready
from tests.simulation import Simulation

N, T, M = 5, 3, 4
VICTIM, POOL, REST = 1, (2, 3), (4, 5)


class Hasty(Aggregator):
    """Forgets a sum as soon as too few decryptors are left."""

    def _keep(self) -> list[Output]:
        return self._abandon(self._shortage())


def cut_short(kind: type[Aggregator]) -> tuple[Simulation, dict[int, Integers], Integers]:
    """Run a round until too few are left; return it, the updates and the sum that the pool has."""
    simulation = ready(N, T, min_contributors=M)
    simulation.aggregator = kind(simulation.session)
    updates = simulation.random_updates()
    sent: dict[int, Contribution] = {}
    shares: dict[int, DecryptionShare] = {}

    def pool(sender: int, receiver: int, message: Message) -> list[Message]:
        if isinstance(message, Contribution):
            sent[sender] = message
        if isinstance(message, DecryptionShare):
            shares[sender] = message
            return [message] if sender == VICTIM else []  # the pool's own answers never leave it
        return [message]

    simulation.intercept = pool

    simulation.begin_round(updates)
    simulation.pump()
    simulation.intercept = None
    assert sorted(shares) == [VICTIM, *POOL]
    opened = simulation.adding(sent).recover([simulation.read_share(s) for s in shares.values()], N)
    assert opened is not None
    simulation.silent |= {*POOL, *REST}
    simulation.post(SERVER, simulation.host.lost(*POOL, *REST))
    simulation.pump()
    return simulation, updates, opened


def back(simulation: Simulation, *clients: int) -> None:
    for index in clients:
        simulation.silent.discard(index)
        simulation.post(index, simulation.parties[index].reconnected())
    simulation.pump()


def without_victim(simulation: Simulation, updates: dict[int, Integers]) -> Summed | Abandoned:
    """Run a round of everybody but client 1."""
    return simulation.run_round(updates, present=[*REST, *POOL])


def test_the_difference_of_two_rounds_is_an_update_when_a_sum_is_abandoned_at_once() -> None:
    simulation, updates, known = cut_short(Hasty)
    assert np.array_equal(known, sum(updates.values()))
    back(simulation, *REST, *POOL)
    end = without_victim(simulation, updates)
    assert isinstance(end, Summed)
    assert np.array_equal(known - end.total, updates[VICTIM])


def test_a_kept_sum_leaves_the_pool_no_second_one() -> None:
    simulation, updates, known = cut_short(Aggregator)
    assert simulation.aggregator is not None
    assert simulation.aggregator.state is AggregatorState.KEEPING
    with pytest.raises(LocalProtocolError):
        without_victim(simulation, updates)
    back(simulation, *REST)
    end = simulation.finish_round()
    assert isinstance(end, Summed) and end.contributors == (1, 2, 3, 4, 5)
    assert np.array_equal(end.total, known)


def given_up() -> tuple[Simulation, dict[int, Integers], Integers]:
    simulation, updates, known = cut_short(Aggregator)
    end = simulation.finish_round()
    assert isinstance(end, Abandoned) and end.begun
    assert end.reason.startswith("lost after decryption began")
    back(simulation, *REST, *POOL)
    return simulation, updates, known


def test_after_it_was_given_up_nobody_stands_alone_in_the_difference() -> None:
    simulation, updates, _ = given_up()
    end = without_victim(simulation, updates)
    assert isinstance(end, Abandoned) and not end.begun
    end = simulation.run_round(updates)
    assert isinstance(end, Summed) and end.contributors == (1, 2, 3, 4, 5)


def test_who_stays_away_is_exposed_in_the_end_and_that_is_said() -> None:
    simulation, updates, known = given_up()
    for _ in range(MAX_WITHHELD):
        assert isinstance(without_victim(simulation, updates), Abandoned)
    end = without_victim(simulation, updates)
    assert isinstance(end, Summed)
    assert np.array_equal(known - end.total, updates[VICTIM])
    said = [event for _, event in simulation.events if isinstance(event, Overlap)]
    assert [event.exposed for event in said] == [(VICTIM,)]


@pytest.mark.parametrize("fewest", [2, 3, 4])
def test_whoever_is_there_the_invited_differ_by_nobody_or_enough(fewest: int) -> None:
    everybody = range(1, 10)
    lost = [frozenset(range(1, 7))]
    sizes = set()
    for size in range(fewest, 10):
        for present in combinations(everybody, size):
            chosen = overlap.invited(lost, present, fewest, lambda all_of_them: [all_of_them])
            assert chosen <= set(present) and (not chosen or len(chosen) >= fewest)
            for part in (lost[0] - chosen, chosen - lost[0]):
                assert not chosen or not part or len(part) >= fewest
            sizes.add(len(chosen))
            if set(present) == lost[0]:
                assert chosen == lost[0]
    assert 9 in sizes or fewest == 4
    assert 0 in sizes
