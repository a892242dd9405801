"""Forged evidence and pledges out of place: they cost their sender its place, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mphe.errors import MalformedMessage, RemoteProtocolError
from mphe.roles.machine import Send
from mphe.roles.rounds.aggregator import Aggregator, AggregatorState
from mphe.wire.messages import (
    SERVER,
    Contribution,
    Message,
    NextPledge,
    Pledge,
    RoundEnd,
    RoundStart,
)
from tests.protocol.support import aggregator_of, assert_exact, collecting, ready
from tests.protocol.verified import (
    sent,
    trained,
    unpledged,
    verified,
)
from tests.simulation import altering, snapshot

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
    assert isinstance(pledge, Send) and isinstance(pledge.message, NextPledge)
    everybody = sorted([*start.pledges, pledge.message.pledge], key=lambda item: item.index)
    contributor.receive(SERVER, replace(start, pledges=tuple(everybody)))
    payload = contributor.encrypt(simulation.random_updates()[2])
    (output,) = contributor.contribute(1, payload)
    assert isinstance(output, Send)
    with pytest.raises(MalformedMessage, match="another c1 than it pledged"):
        aggregator.receive(2, output.message)


def pledging(aggregator: Aggregator, pledge: Pledge) -> NextPledge:
    """Return the message of a pledge."""
    return NextPledge(pledge, aggregator.session.transcript)


# -- every state and pledge ------------------------------------------------------------------------


def aggregator_in(state: AggregatorState, **options: bool) -> Aggregator:
    """Return an aggregator of four clients in that state."""
    simulation = ready(4, 3, **options)
    aggregator = aggregator_of(simulation)
    begun = state in (AggregatorState.DECRYPTING, AggregatorState.KEEPING)
    if options and begun:
        simulation.collect(simulation.random_updates())
    elif state is not AggregatorState.IDLE:
        if options:
            aggregator.start_round(b"model", (1, 2, 3, 4))
        else:
            collecting(simulation, (1, 2, 3, 4) if begun else ())
    if state is AggregatorState.KEEPING:
        for gone in (3, 4):
            aggregator.lost(gone)
    assert aggregator.state is state
    return aggregator


@pytest.mark.parametrize("state", AggregatorState)
def test_a_pledge_is_taken_in_every_state_and_disturbs_none(state: AggregatorState) -> None:
    aggregator = aggregator_in(state, verified=True)
    waiting = aggregator.waiting_for()
    assert aggregator.receive(2, pledging(aggregator, Pledge(2, bytes(32)))) == []
    assert (aggregator.state, aggregator.waiting_for()) == (state, waiting)
    assert aggregator._evidence is not None and 2 in aggregator._evidence.pledged()
    assert Pledge(2, bytes(32)) not in aggregator._evidence.statement.pledges


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
        aggregator.receive(2, pledging(aggregator, pledge))
    assert caught.value.sender == 2
    assert snapshot(aggregator) == before


@pytest.mark.parametrize("state", AggregatorState)
def test_a_pledge_of_another_session_is_refused_in_every_state(state: AggregatorState) -> None:
    aggregator = aggregator_in(state, verified=True)
    before = snapshot(aggregator)
    with pytest.raises(RemoteProtocolError, match="another session"):
        aggregator.receive(2, NextPledge(Pledge(2, bytes(32)), bytes(32)))
    assert snapshot(aggregator) == before


@pytest.mark.parametrize("state", AggregatorState)
def test_a_pledge_is_refused_where_aggregates_are_not_verified(state: AggregatorState) -> None:
    aggregator = aggregator_in(state)
    before = snapshot(aggregator)
    with pytest.raises(RemoteProtocolError, match="not verified"):
        aggregator.receive(2, pledging(aggregator, Pledge(2, bytes(32))))
    assert snapshot(aggregator) == before


def test_contributors_and_decryptors_take_no_pledge() -> None:
    simulation = verified()
    for role in (simulation.contributors[1], simulation.decryptors[1]):
        with pytest.raises(RemoteProtocolError):
            role.receive(SERVER, NextPledge(Pledge(1, bytes(32)), simulation.session.transcript))


def test_a_client_does_not_pledge_by_default() -> None:
    assert ready(4, 3).contributors[1].pledge() == []


def test_a_round_that_is_not_listed_spoils_no_earlier_one() -> None:
    simulation = verified()
    contributor = simulation.contributors[1]
    (output,) = contributor.pledge()
    assert isinstance(output, Send) and isinstance(output.message, NextPledge)
    name = simulation.session.transcript
    contributor.receive(SERVER, RoundStart(1, b"model", (output.message.pledge,), name))
    payload = contributor.encrypt(simulation.random_updates()[1])
    contributor.receive(SERVER, RoundStart(2, b"model", (), name))
    assert contributor.contribute(1, payload) == []
    contributor.receive(SERVER, RoundEnd(2, (), name))
    assert contributor.contribute(1, payload) == []
