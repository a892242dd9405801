"""Who is named for wrong sums, who is not, and what happens to training meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mphe.arithmetic.ring import Limbs
from mphe.errors import RemoteProtocolError
from mphe.roles.machine import Send
from mphe.roles.rounds.outcomes import Abandoned, Excluded, Summed
from mphe.scheme.decryption import read_blocks
from mphe.wire.messages import (
    SERVER,
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Message,
    Ready,
    Refusal,
    RoundStart,
)
from tests.protocol.support import aggregator_of, assert_exact, ready
from tests.simulation import Intercept, Simulation, altering

GROUPS: dict[str, Any] = {
    "decryptors": 4,
    "min_contributors": 3,
    "max_groups": 2,
    "max_attempts": 8,
}


def excluded(simulation: Simulation) -> dict[int, str]:
    return {e.client: e.reason for party, e in simulation.events if isinstance(e, Excluded)}


def forging(simulation: Simulation, cheats: Callable[[int, int], bool]) -> Intercept:
    """Return a hook that takes the bodies of another update when `cheats(client, round)`."""
    other = simulation.contribution(1, 1, simulation.random_updates(seed=99)[1]).body

    def alter(sender: int, receiver: int, message: Message) -> list[Message]:
        if isinstance(message, Contribution) and cheats(sender, message.round):
            return [replace(message, body=other)]
        return [message]

    return alter


def run(simulation: Simulation, rounds: int) -> list[Summed | Abandoned]:
    """Run rounds; every sum that comes out is exact."""
    ends = []
    for seed in range(rounds):
        updates = simulation.random_updates(seed=seed)
        end = simulation.run_round(updates)
        if isinstance(end, Summed):
            assert_exact(end, updates, *end.contributors)
        ends.append(end)
    return ends


# -- one culprit -----------------------------------------------------------------------------------


@pytest.mark.parametrize("culprit", [1, 2, 3, 4])
def test_without_groups_suspects_sit_out_in_turn_until_one_is_named(culprit: int) -> None:
    """Attack: one of four clients spoils every sum that it contributes to.

    Claim: it is named within six rounds, nobody else is, and training goes on without it.
    Weakened: if nobody sits out, every sum has the same suspects, and nobody is ever named.
    """
    simulation = ready(4, 3, min_contributors=3, max_attempts=8)
    simulation.intercept = forging(simulation, lambda client, _: client == culprit)
    ends = run(simulation, 8)
    assert set(excluded(simulation)) == {culprit}
    assert "no other client explains every sum" in excluded(simulation)[culprit]
    others = tuple(i for i in range(1, 5) if i != culprit)
    lost = [end for end in ends if isinstance(end, Abandoned)]
    assert len(lost) <= 4 and all(end.begun for end in lost)
    assert all(isinstance(end, Summed) and end.contributors == others for end in ends[6:])
    # Who sat out did not get the model, and min_contributors were always left.
    starts = [
        {r for _, r, m in simulation.log if isinstance(m, RoundStart) and m.round == round}
        for round in range(1, 9)
    ]
    assert [len(there) for there in starts] == [4] + [3] * 7


def test_nobody_sits_out_beside_a_sum_that_was_lost() -> None:
    """Claim: a round beside a lost sum has its contributors, so that it shows none of them."""
    simulation = ready(4, 3, min_contributors=3, max_attempts=8)
    simulation.intercept = forging(simulation, lambda client, _: client == 4)
    run(simulation, 1)
    aggregator_of(simulation)._lost = [frozenset({1, 2, 3, 4})]
    run(simulation, 1)
    told = {r for _, r, m in simulation.log if isinstance(m, RoundStart) and m.round == 2}
    assert told == {1, 2, 3, 4}


@pytest.mark.parametrize("culprit", [2, 7])
def test_a_contributor_that_always_cheats_is_named_by_new_draws(culprit: int) -> None:
    simulation = ready(8, 3, **GROUPS)
    simulation.intercept = forging(simulation, lambda client, _: client == culprit)
    ends = run(simulation, 7)
    assert set(excluded(simulation)) == {culprit}
    others = tuple(i for i in range(1, 9) if i != culprit)
    assert isinstance(ends[-1], Summed) and ends[-1].contributors == others
    # A culprit costs its group, never the round.
    assert all(isinstance(end, Summed) and len(end.contributors) >= 3 for end in ends)
    starts = [m for _, r, m in simulation.log if isinstance(m, RoundStart) and r == 1 + culprit % 2]
    numbers = [m.draw.number for m in starts]
    assert numbers[0] == 1 and numbers == sorted(numbers)
    # Once it is named, nothing is drawn anew.
    assert numbers[-1] == numbers[-2]


def spoiling(culprit: int, size: int) -> Intercept:
    """Return a hook that spoils a decryptor's share of the first group that it was asked for."""

    def change(message: DecryptionShare) -> Message:
        return replace(message, share=bytes(size) + message.share[size:])

    return altering(DecryptionShare, change, sender=culprit)


@pytest.mark.parametrize("culprit", [1, 3])
def test_a_decryptor_that_spoils_one_group_is_named_and_no_contributor(culprit: int) -> None:
    """Attack: a decryptor answers for one group with noise, so that its members look guilty.

    Claim: others are asked for the same sum, which is right; new groups tell the culprit from them,
    and it is named.
    Weakened: if the group were blamed at once, honest contributors would be.
    """
    simulation = ready(8, 3, **GROUPS)
    simulation.intercept = spoiling(culprit, simulation.plan.share_bytes)
    ends = run(simulation, 10)
    assert set(excluded(simulation)) == {culprit}
    # Every sum came out, of everybody.
    assert all(isinstance(end, Summed) for end in ends)
    assert all(len(end.contributors) >= 7 for end in ends)


@pytest.mark.parametrize("options", [{}, {"verify_clients": True}, {"verified": True}], ids=str)
def test_a_contributor_that_undoes_what_it_did_frames_no_decryptor(options: dict[str, Any]) -> None:
    """Attack: client 5 spoils its c0, and undoes that in its share whenever it decrypts.

    So its sums are wrong under all decryptors but those that it belongs to. In between it refuses
    to decrypt, to be asked last again.
    Claim: whoever got a sum right, its contributors stay suspects, and nobody honest is named.
    Weakened: if only the first decryptors were evidence, client 1 would be excluded in round 6.
    """
    simulation = ready(5, 3, max_attempts=8, **options)
    plan, ring, pauses = simulation.plan, simulation.ring, (3, 4, 5)
    rng, layout = np.random.default_rng(0), simulation.plan.threshold
    sizes = [layout.block_coefficients(block) for block in range(layout.blocks)]
    offsets = [np.zeros((ring.limbs, size), np.int64) for size in sizes]
    for offset in offsets:
        offset[-1] = rng.integers(0, 1 << 8, offset.shape[1])

    def shifted(data: bytes, dropped: int, times: int = 1) -> bytes:
        blocks = read_blocks(ring, layout, data, dropped)
        sums = (Limbs(b + times * o) for b, o in zip(blocks, offsets, strict=True))
        return b"".join(ring.to_bytes(ring.reduce(total), dropped) for total in sums)

    def alter(sender: int, receiver: int, message: Message) -> list[Message]:
        if sender != 5:
            return [message]
        if isinstance(message, DecryptionShare) and message.round in pauses:
            name = message.transcript
            return [Refusal(message.round, message.attempt, "busy", transcript=name)]
        if isinstance(message, DecryptionShare):
            share = shifted(message.share, plan.dropped_share, plan.scaling)
            return [replace(message, share=share)]
        if isinstance(message, Contribution) and message.round not in pauses:
            return [replace(message, c0=shifted(message.c0, plan.dropped_c0))]
        return [message]

    simulation.intercept = alter
    run(simulation, 8)
    assert set(excluded(simulation)) <= {5}


# -- nobody honest ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_nobody_honest_is_named_whatever_a_culprit_does(seed: int) -> None:
    """A contributor that cheats at times, or beside a victim only, and decryptors at times."""
    rng = np.random.default_rng(seed)
    simulation = ready(8, 3, label=f"culprits/{seed}", **GROUPS)
    culprit, victim = (int(i) for i in rng.permutation(np.arange(1, 9))[:2])
    size = simulation.plan.share_bytes
    contributions = forging(simulation, lambda client, _: client == culprit)

    def alter(sender: int, receiver: int, message: Message) -> list[Message]:
        if sender != culprit or rng.random() < 0.4:
            return [message]
        if isinstance(message, DecryptionShare):
            return [replace(message, share=bytes(size) + message.share[size:])]
        return list(contributions(sender, receiver, message))

    simulation.intercept = alter
    run(simulation, 8)
    assert set(excluded(simulation)) <= {culprit}, (culprit, victim)


def test_a_decryptor_that_nobody_can_stand_in_for_gets_no_contributor_named() -> None:
    """Attack: one of exactly t decryptors spoils every sum, whoever contributes.

    Claim: decryptors stand in the evidence beside contributors, so nobody is named.
    Weakened: evidence against contributors alone names the one who never sat out.
    """
    simulation = ready(4, 3, decryptors=3, min_contributors=3, max_attempts=8)
    simulation.intercept = spoiling(1, simulation.plan.share_bytes)
    ends = run(simulation, 6)
    assert all(isinstance(end, Abandoned) for end in ends)
    assert not excluded(simulation)


def test_nobody_is_named_when_more_cheat_than_was_assumed_and_that_is_said() -> None:
    simulation = ready(8, 3, **GROUPS)
    simulation.intercept = forging(simulation, lambda client, _: True)
    ends = run(simulation, 3)
    assert not excluded(simulation)
    for end in ends:
        assert isinstance(end, Abandoned)
        assert "more than 1 cheat, so nobody is named" in end.reason
    # New groups would only tell more of the updates.
    starts = [m for _, r, m in simulation.log if isinstance(m, RoundStart) and r == 1]
    assert {m.draw.number for m in starts} == {1}


def test_two_culprits_are_named_where_two_are_reckoned_with() -> None:
    simulation = ready(9, 3, **(GROUPS | {"max_groups": 3, "max_corrupt": 2, "decryptors": 9}))
    simulation.intercept = forging(simulation, lambda client, _: client in (4, 9))
    ends = run(simulation, 12)
    assert set(excluded(simulation)) == {4, 9}
    assert isinstance(ends[-1], Summed) and ends[-1].contributors == (1, 2, 3, 5, 6, 7, 8)


# -- what is left of who is excluded ---------------------------------------------------------------


def test_who_is_excluded_is_answered_nothing_and_sent_nothing_more() -> None:
    simulation = ready(4, 3, min_contributors=3, max_attempts=8)
    aggregator = aggregator_of(simulation)
    (event,) = aggregator._exclude(4, "it lied")
    assert event == Excluded(4, "it lied")
    assert 4 not in aggregator.members
    before = len(simulation.log)
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3)
    assert not any(receiver == 4 for _, receiver, _ in simulation.log[before:])
    with pytest.raises(RemoteProtocolError, match="client 4 is excluded: it lied"):
        aggregator.receive(4, Ready(b"", ()))


def test_who_is_excluded_in_the_middle_of_a_round_is_dropped_from_it() -> None:
    simulation = ready(4, 2, min_contributors=2)
    aggregator = aggregator_of(simulation)
    updates = simulation.random_updates()
    simulation.collect(updates)
    first, other = aggregator.waiting_for()
    event, *rest = aggregator._exclude(other, "it lied")
    assert isinstance(event, Excluded)
    requests = [s.message for s in rest if isinstance(s, Send)]
    assert requests and all(isinstance(m, DecryptionRequest) for m in requests)
    assert first in aggregator.waiting_for() and other not in aggregator.waiting_for()


def test_who_sits_out_may_not_contribute_all_the_same() -> None:
    simulation = ready(4, 3, min_contributors=3, max_attempts=8)
    simulation.intercept = forging(simulation, lambda client, _: client == 3)
    run(simulation, 1)
    simulation.intercept = None
    simulation.begin_round({})
    simulation.pump()
    aggregator = aggregator_of(simulation)
    (sitting,) = aggregator._now.sitting
    update = simulation.random_updates()[sitting]
    contribution = simulation.contribution(sitting, aggregator.round, update)
    with pytest.raises(RemoteProtocolError, match="takes no part in round 2"):
        aggregator.receive(sitting, contribution)
    assert SERVER not in aggregator.waiting_for() and sitting not in aggregator.waiting_for()
