"""Rounds with verified aggregates: exact sums, drop-outs and pledges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mphe.errors import LocalProtocolError
from mphe.roles.machine import Send
from mphe.roles.rounds.aggregator import AggregatorState
from mphe.roles.rounds.contributor import TrainOn
from mphe.roles.rounds.outcomes import Abandoned
from mphe.roles.setup.client import SetupClient
from mphe.roles.setup.server import SetupDone
from mphe.wire.messages import (
    SERVER,
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Join,
    NextPledge,
    Pledge,
    RoundEnd,
    RoundStart,
)
from tests.protocol.support import MODES, aggregator_of, assert_exact, ready
from tests.protocol.verified import (
    assert_no_c1_twice,
    listed,
    sent,
    trained,
    unpledged,
    verified,
)
from tests.simulation import Simulation, only_group

# -- exact sums ------------------------------------------------------------------------------------


SESSIONS = {
    "four clients": (4, 3, {}),
    "everybody decrypts": (3, 3, {"robust": False, "max_corrupt": 0}),
    "few decryptors": (5, 2, {"decryptors": 3}),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SESSIONS)
def test_every_round_gives_the_exact_sum(name: str, mode: str) -> None:
    n, t, options = SESSIONS[name]
    simulation = verified(n, t, encryption=mode, **options)
    for round in (1, 2, 3):
        updates = simulation.random_updates(seed=round)
        assert_exact(simulation.run_round(updates), updates, *range(1, n + 1))
        assert listed(simulation, round) == tuple(range(1, n + 1))
    asked = [m for _, _, m in sent(simulation, DecryptionRequest)]
    requests = [m for m in asked if isinstance(m, DecryptionRequest) and m.round]
    assert requests and all(not only_group(m).c1 and m.evidence for m in requests)
    assert simulation.refusals == []
    assert_no_c1_twice(simulation)


def test_several_blocks_each_have_their_proof() -> None:
    simulation = verified(3, 3, 40000, encryption="direct")
    assert simulation.plan.threshold.blocks > 1
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3)


# -- drop-outs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False])
def test_a_client_that_vanishes_before_it_contributes_is_not_in_the_sum(told: bool) -> None:
    simulation = verified()
    updates = simulation.random_updates()
    simulation.vanish_before(2, Contribution, told=told)
    assert_exact(simulation.run_round(updates), updates, 1, 3, 4)
    # The list of the round still names it: what it pledged is signed by all others.
    assert listed(simulation, 1) == (1, 2, 3, 4)


@pytest.mark.parametrize("told", [True, False])
def test_a_client_that_vanishes_after_it_contributed_is_in_the_sum(told: bool) -> None:
    simulation = verified()
    updates = simulation.random_updates()
    simulation.vanish_after(2, Contribution, told=told)
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)


@pytest.mark.parametrize("told", [True, False])
def test_others_decrypt_when_a_decryptor_vanishes(told: bool) -> None:
    simulation = verified()
    updates = simulation.random_updates()
    simulation.vanish_before(1, DecryptionShare, told=told)
    end = simulation.run_round(updates)
    assert_exact(end, updates, 1, 2, 3, 4)
    assert end.attempts == 2
    asked = [(m.attempt, m.active) for _, _, m in sent(simulation, DecryptionRequest) if m.round]  # type: ignore[union-attr]
    assert set(asked) == {(1, (1, 2, 3)), (2, (2, 3, 4))}
    # The session goes on without it.
    assert_exact(simulation.run_round(updates), updates, 2, 3, 4)


def test_too_few_contributors_abandon_the_round_and_the_next_succeeds() -> None:
    simulation = verified()
    updates = simulation.random_updates()
    end = simulation.run_round({1: updates[1], 2: updates[2]})
    assert isinstance(end, Abandoned) and "at least 3" in end.reason
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    assert_no_c1_twice(simulation)


# -- pledges ---------------------------------------------------------------------------------------


def test_a_client_that_was_away_for_a_round_is_on_the_list_of_the_next() -> None:
    simulation = verified()
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates, present=(1, 2, 3)), updates, 1, 2, 3)
    assert listed(simulation, 1) == (1, 2, 3)
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    assert listed(simulation, 2) == (1, 2, 3, 4)
    assert trained(simulation, 4) == [2]
    assert_no_c1_twice(simulation)


def test_a_client_that_was_sent_a_round_in_vain_pledges_the_same_again() -> None:
    simulation = verified()
    updates = simulation.random_updates()
    simulation.intercept = lambda _, receiver, m: (
        [] if receiver == 4 and isinstance(m, RoundStart | RoundEnd) else [m]
    )
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3)
    simulation.intercept = None
    # Its pledge is used up at the server; it is renewed over the new connection.
    simulation.push(4, simulation.contributors[4].pledge())
    simulation.pump()
    first, second = (m for s, _, m in sent(simulation, NextPledge) if s == 4)
    assert first == second
    # Round 2 lists it but does not wait for who has just missed a round; round 3 does.
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3)
    assert listed(simulation, 2) == (1, 2, 3, 4)
    assert trained(simulation, 4) == [2]
    simulation.pump()
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    assert_no_c1_twice(simulation)


def test_a_pledge_is_the_same_until_it_is_listed_and_another_one_afterwards() -> None:
    simulation = verified()
    contributor = simulation.contributors[1]

    def pledge() -> Pledge:
        (output,) = contributor.pledge()
        assert isinstance(output, Send) and isinstance(output.message, NextPledge)
        return output.message.pledge

    seen = []
    for _ in range(3):
        seen.append(pledge())
        assert pledge() == seen[-1]
        simulation.run_round(simulation.random_updates())
        assert pledge() != seen[-1]
    assert len({item.digest for item in seen}) == 3
    assert_no_c1_twice(simulation)


def test_a_server_that_lists_an_old_pledge_gets_no_contribution() -> None:
    simulation = verified()
    simulation.run_round(simulation.random_updates())
    old = next(m for _, r, m in sent(simulation, RoundStart) if r == 1)
    assert isinstance(old, RoundStart)
    contributor = simulation.contributors[1]
    outputs = contributor.receive(SERVER, replace(old, round=2))
    assert [type(o.message) for o in outputs if isinstance(o, Send)] == [NextPledge]
    assert not any(isinstance(o, TrainOn) for o in outputs)
    with pytest.raises(LocalProtocolError):
        contributor.encrypt(np.zeros(60, np.int64))


def test_a_client_whose_pledge_was_lost_sits_a_round_out() -> None:
    simulation, aggregator = unpledged(2)
    updates = simulation.random_updates()
    simulation.begin_round(updates)
    simulation.pump()
    # Nobody waited for it: the round is over before any deadline.
    assert aggregator.state is AggregatorState.IDLE
    assert_exact(simulation.finish_round(), updates, 1, 3, 4)
    assert listed(simulation, 1) == (1, 3, 4)
    assert trained(simulation, 2) == []
    # It has heard of the round, so it has pledged again.
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    assert trained(simulation, 2) == [2]


def test_a_pledge_serves_one_round() -> None:
    simulation = verified()
    updates = simulation.random_updates()
    simulation.intercept = lambda s, _, m: [] if s == 2 and isinstance(m, NextPledge) else [m]
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    simulation.intercept = None
    # What client 2 contributes next was lost, and what it has shown is not listed again.
    assert_exact(simulation.run_round(updates), updates, 1, 3, 4)
    assert listed(simulation, 2) == (1, 3, 4)


def test_a_round_that_nobody_pledged_for_is_abandoned_at_once() -> None:
    simulation = Simulation(4, 3, verified=True)
    simulation.intercept = lambda _, __, m: [] if isinstance(m, NextPledge) else [m]
    simulation.run_setup()
    simulation.intercept = None
    updates = simulation.random_updates()
    simulation.begin_round(updates)
    assert any(isinstance(e, Abandoned) for _, e in simulation.events)
    simulation.pump()
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)


def test_the_first_round_waits_for_pledges() -> None:
    simulation, aggregator = unpledged(2)
    assert (aggregator.state, aggregator.waiting_for()) == (AggregatorState.IDLE, (2,))
    simulation.push(2, simulation.contributors[2].pledge())
    simulation.pump()
    assert aggregator.waiting_for() == ()


@pytest.mark.parametrize("lost", [True, False])
def test_the_first_round_does_not_wait_for_ever(lost: bool) -> None:
    simulation, aggregator = unpledged(2)
    if lost:
        simulation.vanish(2)
    else:
        assert aggregator.deadline_passed() == []
    assert aggregator.waiting_for() == ()
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates), updates, 1, 3, 4)


def test_nobody_waits_for_pledges_by_default() -> None:
    assert aggregator_of(ready(4, 3)).waiting_for() == ()


def test_a_late_client_contributes_from_the_round_after_its_pledge() -> None:
    simulation = Simulation(4, 3, verified=True)
    simulation.vanish_before(3, Join)
    assert isinstance(simulation.run_setup(), SetupDone)
    simulation.silent.clear()
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates, present=(1, 2, 4)), updates, 1, 2, 4)
    newcomer = SetupClient(
        *(3, simulation.plan, simulation.identities[3], simulation.roster),
        simulation.hedge("newcomer"),
    )
    simulation.clients[3] = newcomer
    # It joins while a round is under way, which lists it no more.
    simulation.begin_round(updates, present=(1, 2, 4))
    simulation.push(3, newcomer.start())
    simulation.pump()
    assert_exact(simulation.finish_round(), updates, 1, 2, 4)
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    assert trained(simulation, 3) == [3]
    assert simulation.keys[3].share is None
    assert_no_c1_twice(simulation)
