"""Contributors in groups: what a decryptor refuses, what a forgery costs, what is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import mphe
from mphe.arithmetic.ring import Integers
from mphe.errors import RefusedDecryption, RemoteProtocolError
from mphe.roles.machine import Send
from mphe.roles.rounds.decryptor import Decryptor
from mphe.roles.rounds.outcomes import Abandoned, Summed
from mphe.scheme import partition
from mphe.wire.messages import (
    SERVER,
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Draw,
    Group,
    RoundEnd,
    RoundStart,
)
from tests.protocol.support import MODES, aggregator_of, assert_exact, ready
from tests.simulation import Simulation, altering

OPTIONS: dict[str, Any] = {"decryptors": 4, "min_contributors": 3, "max_groups": 2}


def grouped(n: int = 8, t: int = 3, **options: Any) -> Simulation:
    return ready(n, t, **(OPTIONS | options))


def asked(**options: Any) -> tuple[Simulation, Decryptor, DecryptionRequest]:
    """Return a session of two groups, decryptor 2 of it and what an honest server asks it."""
    simulation = grouped(**options)
    _, request = simulation.collect(simulation.random_updates())
    return simulation, simulation.decryptors[2], request


def redrawn(simulation: Simulation, request: DecryptionRequest, draw: Draw) -> DecryptionRequest:
    """Return the request with the groups of another draw, as they would be."""
    runs = partition.runs(simulation.session.transcript, draw, simulation.parameters.num_clients)
    everybody = {i for group in request.groups for i in group.contributors}
    split = partition.split(runs, everybody, simulation.parameters.min_contributors)
    groups = tuple(Group(part, request.groups[0].c1) for part in split)
    return replace(request, draw=draw, groups=groups, asked=tuple(range(len(groups))))


def answer(decryptor: Decryptor, request: DecryptionRequest) -> bytes:
    (output,) = decryptor.receive(SERVER, request)
    assert isinstance(output, Send) and isinstance(output.message, DecryptionShare)
    return output.message.share


def assert_refused(decryptor: Decryptor, request: DecryptionRequest, reason: str) -> None:
    before = decryptor.memory
    with pytest.raises(RefusedDecryption, match=reason):
        decryptor.receive(SERVER, request)
    assert decryptor.memory == before


def with_contributors(request: DecryptionRequest, *parts: tuple[int, ...]) -> DecryptionRequest:
    c1 = request.groups[0].c1
    return replace(
        request,
        groups=tuple(Group(tuple(sorted(part)), c1) for part in parts),
        asked=tuple(range(len(parts))),
    )


# -- what a decryptor refuses ----------------------------------------------------------------------


def test_an_honest_request_is_answered_group_by_group() -> None:
    simulation, decryptor, request = asked()
    assert len(request.groups) == 2 and request.asked == (0, 1)
    spent = decryptor.memory.spent
    assert len(answer(decryptor, request)) == 2 * simulation.plan.share_bytes
    assert decryptor.memory.spent == spent + 2
    second = replace(request, attempt=2, asked=(1,))
    assert len(answer(decryptor, second)) == simulation.plan.share_bytes
    assert decryptor.memory.spent == spent + 3


def test_groups_that_the_draw_does_not_give_are_refused() -> None:
    """Attack: a lying server puts a victim among colluders, or in a group of few.

    Claim: a decryptor computes the groups itself, from U, the draw and its salt.
    Weakened: one that only counts the members of each group answers.
    """
    _, decryptor, request = asked()
    first, second = (group.contributors for group in request.groups)
    others = "the groups are not those of the draw"
    swapped = ((*first[1:], second[0]), (first[0], *second[1:]))
    assert_refused(decryptor, with_contributors(request, *swapped), others)
    assert_refused(decryptor, with_contributors(request, (*first, *second)), others)
    assert_refused(decryptor, with_contributors(request, second, first), others)
    answer(decryptor, request)


def test_a_group_of_too_few_is_refused() -> None:
    _, decryptor, request = asked()
    first, second = (group.contributors for group in request.groups)
    few = with_contributors(request, first[:2], (*first[2:], *second))
    assert_refused(decryptor, few, "a sum of 2 updates; at least 3 must be in it")
    three = with_contributors(request, first[:1], first[1:], second)
    assert_refused(decryptor, three, "draws groups, which nobody agreed to")
    repeated = with_contributors(request, first, (first[0], *second))
    assert_refused(decryptor, repeated, "not sorted, distinct and known")


def test_a_salt_that_was_not_told_is_refused() -> None:
    """Attack: a lying server looks for a salt that puts a victim where it wants it.

    Claim: the salt fits the digest that this client saw when the round started.
    Weakened: a client that forgets the digest answers for any salt.
    """
    simulation, decryptor, request = asked()
    other = redrawn(simulation, request, replace(request.draw, salt=b"another salt" + bytes(20)))
    assert_refused(decryptor, other, "not by the draw that was told")
    # Nor in a round that this client did not see: one salt a draw.
    assert_refused(decryptor, replace(other, round=2), "not by the draw that was told")
    insecure_forgetful = decryptor
    insecure_forgetful.told(0, Draw())
    answer(insecure_forgetful, other)


def test_after_a_draw_was_answered_for_its_salt_stays_and_no_older_draw_is_answered() -> None:
    simulation, decryptor, request = asked()
    decryptor.told(0, Draw())  # It sees no round start from now on.
    newer = redrawn(simulation, request, replace(request.draw, number=3, salt=bytes(32)))
    answer(decryptor, newer)
    same = redrawn(simulation, newer, replace(newer.draw, salt=b"1" * 32))
    assert_refused(decryptor, replace(same, round=2), "groups by draw 3 after draw 3")
    older = redrawn(simulation, newer, replace(newer.draw, number=2))
    assert_refused(decryptor, replace(older, round=2), "groups by draw 2 after draw 3")
    answer(decryptor, replace(newer, round=2))


def test_no_older_draw_is_answered_than_was_told() -> None:
    simulation, decryptor, request = asked()
    newer = replace(request.draw, number=3, salt=bytes(32))
    decryptor.told(1, partition.announced(newer))
    assert_refused(decryptor, replace(request, round=2), "groups by draw 1 after draw 3")
    answer(decryptor, replace(redrawn(simulation, request, newer), round=2))


@pytest.mark.parametrize("number", [0, 17])
def test_only_sixteen_draws_are_answered_for(number: int) -> None:
    """Attack: a lying server draws again and again; each draw is an equation for single updates.

    Claim: the 17th draw is refused.
    Weakened: without the limit decryptors answer as often as there are rounds.
    """
    simulation, decryptor, request = asked()
    decryptor.told(0, Draw())
    last = redrawn(simulation, request, replace(request.draw, number=16))
    answer(decryptor, last)
    beyond = redrawn(simulation, last, replace(last.draw, number=number))
    assert_refused(decryptor, replace(beyond, round=2), "draws groups, which nobody agreed to")


@pytest.mark.parametrize("asked_for", [(), (0, 2), (1, 0), (0, 0)], ids=str)
def test_groups_that_are_not_there_are_not_asked_for(asked_for: tuple[int, ...]) -> None:
    _, decryptor, request = asked()
    assert_refused(decryptor, replace(request, asked=asked_for), "groups that it does not have")


def test_the_digest_of_a_round_covers_all_groups() -> None:
    """Attack: after an answer for both groups the server changes one, and asks for that alone.

    Claim: one digest a round, over salt, draw, U and every c1.
    Weakened: a digest over the groups asked for is new, and answered for.
    """
    _, decryptor, request = asked()
    answer(decryptor, replace(request, asked=(0,)))
    other = replace(request.groups[1], c1=request.groups[0].c1)
    changed = replace(request, attempt=2, groups=(request.groups[0], other), asked=(1,))
    assert_refused(decryptor, changed, "another aggregate of round 1")
    fewer = with_contributors(request, *(g.contributors for g in request.groups))
    assert_refused(decryptor, replace(fewer, attempt=2), "another aggregate of round 1")
    answer(decryptor, replace(request, attempt=2, asked=(1,)))


def test_more_groups_under_one_attempt_are_no_repetition() -> None:
    """Else answers would be given that the budget does not count."""
    _, decryptor, request = asked()
    first = answer(decryptor, replace(request, asked=(0,)))
    assert_refused(decryptor, request, "attempt 1 is not newer")
    assert answer(decryptor, replace(request, asked=(0,))) == first


def test_every_c1_has_the_length_of_one() -> None:
    _, decryptor, request = asked()
    first, second = request.groups
    moved = (replace(first, c1=first.c1 + second.c1[:12]), replace(second, c1=second.c1[12:]))
    assert_refused(decryptor, replace(request, groups=moved), "c1 is malformed")


def test_what_a_decryptor_knows_of_draws_survives_a_restart() -> None:
    simulation, decryptor, request = asked()
    answer(decryptor, request)
    party = simulation.parties[2]
    restored = mphe.Client.restore(party.state, mphe.Identity(simulation.identities[2]))
    assert restored.decryptor is not None
    assert restored.decryptor.memory == decryptor.memory
    assert restored.decryptor.memory.draw == request.draw
    other = redrawn(simulation, request, replace(request.draw, salt=bytes(32)))
    assert_refused(restored.decryptor, other, "not by the draw that was told")
    restored.decryptor.told(0, Draw())
    assert_refused(restored.decryptor, replace(other, round=2), "groups by draw 1 after draw 1")


# -- what a contributor refuses --------------------------------------------------------------------


def test_a_contributor_follows_no_draw_that_it_did_not_agree_to() -> None:
    simulation = grouped()
    simulation.collect(simulation.random_updates())
    contributor = simulation.contributors[1]
    told = contributor.draw
    assert told.number == 1 and told.groups == 2 and len(told.salt) == 32
    name = simulation.session.transcript
    wrong = [Draw(), replace(told, groups=3), replace(told, salt=b""), replace(told, number=17)]
    for draw in (*wrong, replace(told, salt=bytes(32))):
        with pytest.raises(RemoteProtocolError, match="draws groups"):
            contributor.receive(SERVER, RoundStart(2, b"", transcript=name, draw=draw))
    assert contributor.draw == told
    later = replace(told, number=2, salt=bytes(32))
    contributor.receive(SERVER, RoundStart(2, b"", transcript=name, draw=later))
    with pytest.raises(RemoteProtocolError, match="by draw 1 after draw 2"):
        contributor.receive(SERVER, RoundStart(3, b"", transcript=name, draw=told))


# -- rounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_the_sums_of_groups_are_exact_and_add_up(mode: str) -> None:
    simulation = grouped(encryption=mode)
    updates = simulation.random_updates()
    end = simulation.run_round(updates)
    assert_exact(end, updates, *range(1, 9))
    assert isinstance(end, Summed) and end.attempts == 1 and len(end.groups) == 2
    for group in end.groups:
        assert group.total is not None and not group.reason and len(group.contributors) == 4
        assert np.array_equal(group.total, sum(updates[i] for i in group.contributors))


def test_groups_work_with_verified_aggregates() -> None:
    simulation = grouped(verified=True, max_corrupt=1)
    updates = simulation.random_updates()
    end = simulation.run_round(updates)
    assert_exact(end, updates, *range(1, 9))
    assert isinstance(end, Summed) and len(end.groups) == 2
    requests = [m for _, _, m in simulation.log if isinstance(m, DecryptionRequest) and m.round]
    assert all(not group.c1 for m in requests for group in m.groups)
    # Contributors signed the draw: shown with another salt, what they signed does not fit.
    simulation.decryptors[requests[0].active[0]].told(0, Draw())
    other = redrawn(simulation, requests[0], replace(requests[0].draw, number=2, salt=bytes(32)))
    with pytest.raises(RefusedDecryption, match="did not sign"):
        simulation.decryptors[requests[0].active[0]].receive(SERVER, replace(other, attempt=2))


def test_who_stays_away_leaves_an_empty_place_and_small_groups_are_joined() -> None:
    simulation = grouped(decryptors=8)
    updates = simulation.random_updates()
    simulation.run_round(updates)
    runs = partition.runs(simulation.session.transcript, aggregator_of(simulation)._blame.draw, 8)
    away = set(runs[0][:2])
    some = {i: update for i, update in updates.items() if i not in away}
    end = simulation.run_round(some, present=sorted(some))
    assert_exact(end, updates, *sorted(some))
    assert isinstance(end, Summed) and [g.contributors for g in end.groups] == [tuple(sorted(some))]
    one = {i: update for i, update in updates.items() if i != runs[0][0]}
    end = simulation.run_round(one, present=sorted(one))
    assert isinstance(end, Summed)
    assert [g.contributors for g in end.groups] == [runs[0][1:], runs[1]]


def test_one_forged_update_costs_its_group_only() -> None:
    simulation = grouped()
    updates = simulation.random_updates()
    other = simulation.contribution(5, 1, updates[5])
    simulation.intercept = altering(Contribution, lambda m: replace(m, body=other.body), sender=5)
    end = simulation.run_round(updates)
    assert isinstance(end, Summed) and 5 not in end.contributors and len(end.contributors) == 4
    assert_exact(end, updates, *end.contributors)
    lost = next(group for group in end.groups if group.total is None)
    assert 5 in lost.contributors and "forged" in lost.reason
    # Everybody is told whose update was counted, and the groups are drawn anew.
    ends = [m for _, _, m in simulation.log if isinstance(m, RoundEnd)]
    assert {m.contributors for m in ends} == {end.contributors}
    simulation.intercept = None
    assert_exact(simulation.run_round(updates), updates, *range(1, 9))
    starts = [m for _, r, m in simulation.log if isinstance(m, RoundStart) and r == 1]
    assert [m.draw.number for m in starts] == [1, 2]


def test_when_no_group_is_plausible_the_round_is_lost() -> None:
    simulation = grouped()
    updates = simulation.random_updates()
    made = {i: simulation.contribution(i, 1, updates[i]).body for i in updates}
    simulation.intercept = altering(Contribution, lambda m: replace(m, body=made[1]))
    end = simulation.run_round(updates)
    assert isinstance(end, Abandoned) and end.begun and "forged" in end.reason


def test_a_sum_that_the_judge_does_not_believe_is_treated_like_one_out_of_range() -> None:
    def judge(total: Any, contributors: int) -> str:
        return "the mean is too long" if total[3] > 60_000 * contributors else ""

    simulation = grouped(judge=judge)
    updates = simulation.random_updates()
    for update in updates.values():
        update[3] = 5
    updates[6][3] = 65_535
    assert_exact(simulation.run_round(updates), updates, *range(1, 9))
    for i in range(1, 9):
        updates[i][3] = 65_535
    end = simulation.run_round(updates)
    assert isinstance(end, Abandoned) and end.reason.startswith("the mean is too long")
    assert end.attempts > 1


def test_without_groups_the_judge_is_asked_too() -> None:
    simulation = ready(4, 2, judge=lambda total, contributors: f"no to {contributors}")
    end = simulation.run_round(simulation.random_updates())
    assert isinstance(end, Abandoned) and end.reason == "no to 4" and end.attempts == 2


# -- sums that are kept ----------------------------------------------------------------------------


def begun(simulation: Simulation) -> dict[int, Integers]:
    """Lose decryptors in the middle of a decryption, until too few are left."""
    updates = simulation.random_updates()
    simulation.collect(updates)
    aggregator = aggregator_of(simulation)
    for gone in (1, 2):
        aggregator.lost(gone)
    assert aggregator.state.value == "keeping"
    return updates


def test_the_sums_of_all_groups_are_kept_until_decryptors_are_back() -> None:
    simulation = grouped()
    updates = begun(simulation)
    restored = mphe.Server.restore(simulation.host.state)
    assert restored.state == simulation.host.state
    simulation.silent.clear()
    for index in (1, 2):
        simulation.post(index, simulation.parties[index].reconnected())
    simulation.pump()
    end = simulation.finish_round()
    assert_exact(end, updates, *range(1, 9))
    assert isinstance(end, Summed) and len(end.groups) == 2


def test_beside_groups_that_were_lost_no_group_shows_fewer_than_may_be_shown() -> None:
    """Attack: the sums of two groups are lost to the server alone; one member of one stays away.

    Claim: the next groups on the same model differ from each of those by nobody, or by enough.
    Weakened: U as a whole differs by nobody's update that is alone, but a group does.
    """
    simulation = grouped()
    begun(simulation)
    simulation.deadline()
    aggregator = aggregator_of(simulation)
    lost = [set(group) for group in aggregator._lost]
    assert [len(group) for group in lost] == [4, 4]
    simulation.silent.clear()
    away = min(lost[0])
    simulation.begin_round({}, present=[i for i in range(1, 9) if i != away])
    told = {r for _, r, m in simulation.log if isinstance(m, RoundStart) and m.round == 2}
    assert away not in told
    left = aggregator._told()
    for group in aggregator._split(left) if len(left) >= 3 else ():
        for before in lost:
            assert len(before - set(group)) in {0, 3, 4} and len(set(group) - before) in {0, 3, 4}
