"""Rounds with verified aggregates: exact sums, drop-outs, pledges, and forged evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mphe.aggregator import Abandoned, Aggregator
from mphe.aggregator import State as AggregatorState
from mphe.contributor import TrainOn
from mphe.errors import LocalProtocolError, MalformedMessage, RemoteProtocolError
from mphe.evidence import c1_digest
from mphe.machine import Send
from mphe.messages import (
    SERVER,
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Join,
    Message,
    Pledge,
    RoundEnd,
    RoundStart,
)
from mphe.setup_client import SetupClient
from mphe.setup_server import SetupDone
from tests.protocol.support import MODES, aggregator_of, assert_exact, collecting, ready
from tests.simulation import Simulation, altering, snapshot


def verified(n: int = 4, t: int = 3, length: int = 60, **options: object) -> Simulation:
    """Return a session that verifies aggregates, its key confirmed."""
    return ready(n, t, length, **{"verified": True, **options})


def sent(simulation: Simulation, kind: type[Message]) -> list[tuple[int, int, Message]]:
    """Return (sender, receiver, message) of all messages of a kind, in their order."""
    return [entry for entry in simulation.log if isinstance(entry[2], kind)]


def listed(simulation: Simulation, round: int) -> tuple[int, ...]:
    """Return who was told to contribute to a round; everybody is told the same."""
    starts = {m.pledges for _, _, m in sent(simulation, RoundStart) if m.round == round}  # type: ignore[union-attr]
    (pledges,) = starts
    return tuple(pledge.index for pledge in pledges)


def trained(simulation: Simulation, index: int) -> list[int]:
    """Return the rounds in which a client was told to train."""
    return [e.round for i, e in simulation.events if i == index and isinstance(e, TrainOn)]


def assert_no_c1_twice(simulation: Simulation) -> None:
    """No c1 was shown in two rounds, and each was pledged before anything else was shown."""
    shown: set[bytes] = set()
    pledged: dict[int, list[bytes]] = {}
    for sender, _, message in simulation.log:
        if isinstance(message, Pledge):
            pledged.setdefault(sender, []).append(message.digest)
        elif isinstance(message, Contribution):
            assert message.c1 not in shown
            shown.add(message.c1)
            assert c1_digest(message.c1) in pledged[sender]
    assert shown


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
    requests = [m for _, _, m in sent(simulation, DecryptionRequest) if m.round]  # type: ignore[union-attr]
    assert requests and all(not m.c1 and m.evidence for m in requests)  # type: ignore[union-attr]
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
    assert isinstance(end, Abandoned) and "at least 3" in end.error.reason
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
    first, second = (m for s, _, m in sent(simulation, Pledge) if s == 4)
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
        assert isinstance(output, Send) and isinstance(output.message, Pledge)
        return output.message

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
    assert [type(o.message) for o in outputs if isinstance(o, Send)] == [Pledge]
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
    simulation.intercept = lambda s, _, m: [] if s == 2 and isinstance(m, Pledge) else [m]
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    simulation.intercept = None
    # What client 2 contributes next was lost, and what it has shown is not listed again.
    assert_exact(simulation.run_round(updates), updates, 1, 3, 4)
    assert listed(simulation, 2) == (1, 3, 4)


def test_a_round_that_nobody_pledged_for_is_abandoned_at_once() -> None:
    simulation = Simulation(4, 3, verified=True)
    simulation.intercept = lambda _, __, m: [] if isinstance(m, Pledge) else [m]
    simulation.run_setup()
    simulation.intercept = None
    updates = simulation.random_updates()
    simulation.begin_round(updates)
    assert any(isinstance(e, Abandoned) for _, e in simulation.events)
    simulation.pump()
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)


def unpledged(index: int) -> tuple[Simulation, Aggregator]:
    """Return a session before its first round, in which one client has not pledged yet."""
    simulation = Simulation(4, 3, verified=True)
    simulation.intercept = lambda s, _, m: [] if s == index and isinstance(m, Pledge) else [m]
    simulation.run_setup()
    simulation.intercept = None
    return simulation, aggregator_of(simulation)


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
        simulation.source("newcomer"),
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


# -- forged evidence -------------------------------------------------------------------------------

Forgery = Callable[[Contribution, Contribution, Contribution], Contribution]
"""(client 3's contribution, its last one, client 2's of this round) → what client 3 sends."""
FORGERIES: dict[str, tuple[str, Forgery]] = {
    "no signature": ("did not sign", lambda own, *_: replace(own, signature=b"")),
    "somebody's signature": (
        "did not sign",
        lambda own, old, other: replace(own, signature=other.signature),
    ),
    "an old signature": (
        "did not sign",
        lambda own, old, other: replace(own, signature=old.signature),
    ),
    "an old c1": ("another c1", lambda own, old, other: replace(own, c1=old.c1)),
    "somebody's c1": ("another c1", lambda own, old, other: replace(own, c1=other.c1)),
    "no c1": ("", lambda own, *_: replace(own, c1=b"")),
    "no proof": ("wrong length", lambda own, *_: replace(own, proof=b"")),
    "a short proof": ("wrong length", lambda own, *_: replace(own, proof=own.proof[:-1])),
    "a long proof": ("wrong length", lambda own, *_: replace(own, proof=own.proof + b"x")),
    "a false challenge": (
        "does not fit",
        lambda own, *_: replace(own, proof=bytes([own.proof[0] ^ 1]) + own.proof[1:]),
    ),
    "a false response": (
        "proof",
        lambda own, *_: replace(own, proof=own.proof[:-1] + bytes([own.proof[-1] ^ 1])),
    ),
    "an old proof": ("does not fit", lambda own, old, other: replace(own, proof=old.proof)),
    "somebody's proof": ("does not fit", lambda own, old, other: replace(own, proof=other.proof)),
    "all of somebody else": (
        "another c1",
        lambda own, old, other: replace(
            own, c1=other.c1, proof=other.proof, signature=other.signature
        ),
    ),
    "all of the last round": ("another c1", lambda own, old, other: replace(old, round=own.round)),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_evidence_costs_its_sender_only(name: str) -> None:
    reason, forge = FORGERIES[name]
    simulation = verified()
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    before = {s: m for s, _, m in sent(simulation, Contribution)}
    now: dict[int, Contribution] = {}

    def meddle(sender: int, _: int, message: Message) -> list[Message]:
        if isinstance(message, Contribution):
            now[sender] = message
            if sender == 3:
                old = before[3]
                assert isinstance(old, Contribution)
                return [forge(message, old, now[2])]
        return [message]

    simulation.intercept = meddle
    assert_exact(simulation.run_round(updates), updates, 1, 2, 4)
    ((receiver, error),) = simulation.refusals
    assert (receiver, type(error), error.sender) == (SERVER, MalformedMessage, 3)
    assert reason in error.reason
    assert trained(simulation, 3) == [1, 2]


def test_forged_evidence_changes_nothing_at_the_server() -> None:
    simulation = verified()
    aggregator = aggregator_of(simulation)
    held: list[Contribution] = []

    def hold(sender: int, _: int, message: Message) -> list[Message]:
        if sender == 3 and isinstance(message, Contribution):
            held.append(message)
            return []
        return [message]

    simulation.intercept = hold
    simulation.begin_round(simulation.random_updates())
    simulation.pump()
    before = snapshot(aggregator)
    with pytest.raises(MalformedMessage):
        aggregator.receive(3, replace(held[0], proof=held[0].proof[::-1]))
    assert snapshot(aggregator) == before
    aggregator.receive(3, held[0])
    assert snapshot(aggregator) != before


def test_proofs_of_two_blocks_cannot_be_swapped() -> None:
    simulation = verified(4, 3, 40000, encryption="direct")
    blocks = simulation.plan.threshold.blocks
    assert blocks > 1

    def swap(message: Contribution) -> Contribution:
        length = len(message.proof) // blocks
        parts = [message.proof[i * length : (i + 1) * length] for i in range(blocks)]
        return replace(message, proof=b"".join(reversed(parts)))

    simulation.intercept = altering(Contribution, swap, sender=3)
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates), updates, 1, 2, 4)
    assert "does not fit" in simulation.refusals[0][1].reason


def test_a_client_that_is_not_listed_cannot_contribute() -> None:
    simulation, aggregator = unpledged(2)
    outputs = aggregator.start_round(b"model", (1, 2, 3, 4))
    (start,) = {o.message for o in outputs if isinstance(o, Send)}
    assert isinstance(start, RoundStart)
    # It pretends that it was listed.
    contributor = simulation.contributors[2]
    (pledge,) = contributor.pledge()
    assert isinstance(pledge, Send) and isinstance(pledge.message, Pledge)
    everybody = sorted([*start.pledges, pledge.message], key=lambda item: item.index)
    contributor.receive(SERVER, replace(start, pledges=tuple(everybody)))
    payload = contributor.encrypt(simulation.random_updates()[2])
    (output,) = contributor.contribute(1, payload)
    assert isinstance(output, Send)
    with pytest.raises(MalformedMessage, match="another c1 than it pledged"):
        aggregator.receive(2, output.message)


# -- every state and pledge ------------------------------------------------------------------------


def aggregator_in(state: AggregatorState, **options: bool) -> Aggregator:
    """Return an aggregator of four clients in that state."""
    simulation = ready(4, 3, **options)
    aggregator = aggregator_of(simulation)
    if options and state is AggregatorState.DECRYPTING:
        simulation.collect(simulation.random_updates())
    elif state is not AggregatorState.IDLE:
        who = (1, 2, 3, 4) if state is AggregatorState.DECRYPTING else ()
        if options:
            aggregator.start_round(b"model", (1, 2, 3, 4))
        else:
            collecting(simulation, who)
    assert aggregator.state is state
    return aggregator


@pytest.mark.parametrize("state", AggregatorState)
def test_a_pledge_is_taken_in_every_state_and_disturbs_none(state: AggregatorState) -> None:
    aggregator = aggregator_in(state, verified=True)
    waiting = aggregator.waiting_for()
    assert aggregator.receive(2, Pledge(2, bytes(32))) == []
    assert (aggregator.state, aggregator.waiting_for()) == (state, waiting)
    assert aggregator._ledger is not None and 2 in aggregator._ledger.pledged()
    assert Pledge(2, bytes(32)) not in aggregator._ledger.statement.pledges


@pytest.mark.parametrize("state", AggregatorState)
@pytest.mark.parametrize(
    "pledge", [Pledge(3, bytes(32)), Pledge(2, b""), Pledge(2, bytes(31)), Pledge(2, bytes(33))]
)
def test_a_malformed_pledge_is_refused_in_every_state(
    state: AggregatorState, pledge: Pledge
) -> None:
    aggregator = aggregator_in(state, verified=True)
    before = snapshot(aggregator)
    with pytest.raises(MalformedMessage) as caught:
        aggregator.receive(2, pledge)
    assert caught.value.sender == 2
    assert snapshot(aggregator) == before


@pytest.mark.parametrize("state", AggregatorState)
def test_a_pledge_is_refused_where_aggregates_are_not_verified(state: AggregatorState) -> None:
    aggregator = aggregator_in(state)
    before = snapshot(aggregator)
    with pytest.raises(RemoteProtocolError, match="not verified"):
        aggregator.receive(2, Pledge(2, bytes(32)))
    assert snapshot(aggregator) == before


def test_contributors_and_decryptors_take_no_pledge() -> None:
    simulation = verified()
    for role in (simulation.contributors[1], simulation.decryptors[1]):
        with pytest.raises(RemoteProtocolError):
            role.receive(SERVER, Pledge(1, bytes(32)))


def test_a_client_does_not_pledge_by_default() -> None:
    assert ready(4, 3).contributors[1].pledge() == []


def test_a_round_that_is_not_listed_spoils_no_earlier_one() -> None:
    simulation = verified()
    contributor = simulation.contributors[1]
    (output,) = contributor.pledge()
    assert isinstance(output, Send) and isinstance(output.message, Pledge)
    contributor.receive(SERVER, RoundStart(1, b"model", (output.message,)))
    payload = contributor.encrypt(simulation.random_updates()[1])
    contributor.receive(SERVER, RoundStart(2, b"model", ()))
    assert contributor.contribute(1, payload) == []
    contributor.receive(SERVER, RoundEnd(2, ()))
    assert contributor.contribute(1, payload) == []
