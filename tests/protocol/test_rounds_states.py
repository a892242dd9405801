"""Rounds: who may say what when, and what a contributor sends once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mphe.errors import (
    LocalProtocolError,
    MalformedMessage,
    ParameterError,
    RemoteProtocolError,
)
from mphe.roles.machine import Machine, Send
from mphe.roles.rounds.aggregator import Aggregator, AggregatorState
from mphe.roles.rounds.collecting import Outdated
from mphe.roles.rounds.contributor import Contributor, ContributorState, TrainOn
from mphe.roles.rounds.decryptor import Decryptor
from mphe.wire.codec import MESSAGE_TYPES
from mphe.wire.messages import (
    SERVER,
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Draw,
    Join,
    Message,
    NextPledge,
    Ready,
    Refusal,
    RoundEnd,
    RoundStart,
)
from tests.protocol.support import SAMPLES, aggregator_of, collecting, ready
from tests.simulation import snapshot

# -- every state and message -----------------------------------------------------------------------

ROUND_MESSAGES = {Contribution, DecryptionShare, Refusal}
AGGREGATOR_TAKES = {state: {Join, Ready, NextPledge, *ROUND_MESSAGES} for state in AggregatorState}
CONTRIBUTOR_TAKES = {state: {RoundStart, RoundEnd} for state in ContributorState}


def aggregator_in(state: AggregatorState) -> Aggregator:
    """Return an aggregator in that state."""
    simulation = ready(3, 2)
    if state is not AggregatorState.IDLE:
        collecting(simulation, (1,) if state is AggregatorState.COLLECTING else (1, 2, 3))
    if state is AggregatorState.KEEPING:
        aggregator_of(simulation).lost(2, 3)
    assert aggregator_of(simulation).state is state
    return aggregator_of(simulation)


def started(contributor: Contributor, round: int, model: bytes = b"") -> RoundStart:
    """Return the start of a round of a contributor's session."""
    return RoundStart(round, model, transcript=contributor._transcript)


def contributor_in(state: ContributorState) -> Contributor:
    """Return contributor 1 in that state, in round 1."""
    simulation = ready(2, 2)
    contributor = simulation.contributors[1]
    contributor.receive(SERVER, started(contributor, 1))
    if state is ContributorState.IDLE:
        contributor.receive(SERVER, RoundEnd(1, (), contributor._transcript))
    elif state is ContributorState.SENT:
        contributor.contribute(1, contributor.encrypt(np.zeros(60, np.int64)))
    assert contributor.state is state
    return contributor


def assert_only_takes(role: Machine | Decryptor, takes: set[type], sender: int) -> None:
    """Every other message raises and changes nothing."""
    before = snapshot(role)
    for kind in MESSAGE_TYPES:
        if kind in takes:
            continue
        with pytest.raises(RemoteProtocolError) as caught:
            role.receive(sender, SAMPLES[kind])
        assert caught.value.sender == sender
        assert snapshot(role) == before


@pytest.mark.parametrize("state", AggregatorState)
def test_aggregator_refuses_what_its_state_does_not_expect(state: AggregatorState) -> None:
    assert Aggregator.ACCEPTS[state] == AGGREGATOR_TAKES[state]
    assert_only_takes(aggregator_in(state), AGGREGATOR_TAKES[state], 1)


@pytest.mark.parametrize("state", ContributorState)
def test_contributor_refuses_what_its_state_does_not_expect(state: ContributorState) -> None:
    assert Contributor.ACCEPTS[state] == CONTRIBUTOR_TAKES[state]
    assert_only_takes(contributor_in(state), CONTRIBUTOR_TAKES[state], SERVER)


def test_decryptor_refuses_what_is_no_request() -> None:
    decryptor: Decryptor = ready(2, 2).decryptors[1]
    assert_only_takes(decryptor, {DecryptionRequest}, SERVER)


def of_session(aggregator: Aggregator, kind: type) -> Message:
    """Return a message that names the aggregator's session."""
    changes: dict[str, Any] = {"segment": 0} if kind is Contribution else {}
    changes["transcript"] = aggregator.session.transcript
    sample: Any = SAMPLES[kind]
    changed: Message = replace(sample, **changes)
    return changed


@pytest.mark.parametrize("kind", [Contribution, DecryptionShare, Refusal])
def test_idle_aggregator_takes_stragglers_as_late(kind: type) -> None:
    aggregator = aggregator_in(AggregatorState.IDLE)
    before = snapshot(aggregator)
    assert aggregator.receive(2, of_session(aggregator, kind)) == [Outdated(2)]
    assert snapshot(aggregator) == before


@pytest.mark.parametrize("kind", [DecryptionShare, Refusal])
def test_share_or_refusal_while_collecting_is_late(kind: type) -> None:
    aggregator = aggregator_in(AggregatorState.COLLECTING)
    before = snapshot(aggregator)
    assert aggregator.receive(2, of_session(aggregator, kind)) == [Outdated(2)]
    assert snapshot(aggregator) == before


@pytest.mark.parametrize("state", list(AggregatorState)[1:])
def test_round_cannot_start_inside_a_round(state: AggregatorState) -> None:
    aggregator = aggregator_in(state)
    before = snapshot(aggregator)
    with pytest.raises(LocalProtocolError):
        aggregator.start_round(b"", (1, 2, 3))
    assert snapshot(aggregator) == before


def test_idle_aggregator_ignores_deadlines_and_losses() -> None:
    aggregator = aggregator_in(AggregatorState.IDLE)
    assert aggregator.deadline_passed() == [] and aggregator.lost(1) == []
    assert aggregator.state is AggregatorState.IDLE


# -- the contributor -------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ContributorState)
@pytest.mark.parametrize(
    ("sender", "message"),
    [
        (2, RoundStart(2, b"")),
        (SERVER, RoundStart(1, b"")),
        (SERVER, RoundStart(0, b"")),
        (SERVER, RoundEnd(2, (1,))),
        (SERVER, RoundEnd(0, (1,))),
    ],
)
def test_contributor_refuses_other_senders_and_other_rounds(
    state: ContributorState, sender: int, message: RoundStart | RoundEnd
) -> None:
    contributor = contributor_in(state)
    before = snapshot(contributor)
    with pytest.raises(RemoteProtocolError):
        contributor.receive(sender, replace(message, transcript=contributor._transcript))
    assert snapshot(contributor) == before


@pytest.mark.parametrize("state", ContributorState)
@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("another session", {"transcript": bytes(32)}),
        ("another session", {"transcript": b""}),
        ("draws groups", {"draw": Draw(number=1)}),
        ("draws groups", {"draw": Draw(groups=2)}),
        ("draws groups", {"draw": Draw(salt=bytes(32))}),
    ],
)
def test_contributor_refuses_other_sessions_and_groups(
    state: ContributorState, reason: str, changes: dict[str, Any]
) -> None:
    contributor = contributor_in(state)
    before = snapshot(contributor)
    with pytest.raises(RemoteProtocolError, match=reason):
        contributor.receive(SERVER, replace(started(contributor, 2), **changes))
    assert snapshot(contributor) == before


def test_contributor_refuses_the_end_of_a_round_of_another_session() -> None:
    contributor = contributor_in(ContributorState.SENT)
    with pytest.raises(RemoteProtocolError, match="another session"):
        contributor.receive(SERVER, RoundEnd(1, (1,), bytes(32)))
    assert contributor.state is ContributorState.SENT


@pytest.mark.parametrize("state", AggregatorState)
@pytest.mark.parametrize("kind", [Contribution, DecryptionShare, Refusal])
def test_aggregator_refuses_what_names_another_session(state: AggregatorState, kind: type) -> None:
    aggregator = aggregator_in(state)
    before = snapshot(aggregator)
    for name in (bytes(32), b""):
        message: Any = of_session(aggregator, kind)
        with pytest.raises(RemoteProtocolError, match="another session"):
            aggregator.receive(2, replace(message, transcript=name))
    assert snapshot(aggregator) == before


@pytest.mark.parametrize("state", AggregatorState)
def test_aggregator_refuses_an_update_in_segments(state: AggregatorState) -> None:
    aggregator = aggregator_in(state)
    message: Any = of_session(aggregator, Contribution)
    before = snapshot(aggregator)
    with pytest.raises(MalformedMessage, match="segments"):
        aggregator.receive(2, replace(message, segment=1))
    assert snapshot(aggregator) == before


@pytest.mark.parametrize("state", ContributorState)
def test_newer_round_replaces_whatever_went_before(state: ContributorState) -> None:
    contributor = contributor_in(state)
    payload = contributor.encrypt(np.zeros(60, np.int64))
    assert contributor.receive(SERVER, started(contributor, 3, b"m")) == [TrainOn(3, b"m")]
    assert contributor.contribute(1, payload) == []
    (output,) = contributor.contribute(3, payload)
    assert isinstance(output, Send) and isinstance(output.message, Contribution)
    assert output.message.round == 3


def test_contributor_sends_one_contribution_a_round() -> None:
    contributor = contributor_in(ContributorState.SENT)
    with pytest.raises(LocalProtocolError):
        contributor.contribute(1, contributor.encrypt(np.zeros(60, np.int64)))


def test_contribution_after_the_end_of_its_round_is_not_sent() -> None:
    contributor = contributor_in(ContributorState.IDLE)
    assert contributor.contribute(1, contributor.encrypt(np.zeros(60, np.int64))) == []


def test_payload_is_never_sent_twice() -> None:
    """A one-time key that served two rounds would be in two sums."""
    contributor = contributor_in(ContributorState.WORKING)
    payload = contributor.encrypt(np.zeros(60, np.int64))
    contributor.contribute(1, payload)
    contributor.receive(SERVER, started(contributor, 2))
    with pytest.raises(LocalProtocolError):
        contributor.contribute(2, payload)


def test_two_contributions_share_no_key_material() -> None:
    contributor = contributor_in(ContributorState.WORKING)
    first, second = (contributor.encrypt(np.zeros(60, np.int64)) for _ in range(2))
    assert first.c0 != second.c0 and first.c1 != second.c1 and first.body != second.body


def test_each_block_has_its_own_randomness() -> None:
    simulation = ready(2, 2, 9001, encryption="direct")
    assert simulation.plan.threshold.blocks > 1
    c1 = simulation.contribution(1, 1, np.zeros(9001, np.int64)).c1
    width = len(c1) // simulation.plan.threshold.blocks
    assert c1[:width] != c1[width : 2 * width]


def test_client_without_a_share_cannot_be_a_decryptor() -> None:
    simulation = ready(3, 2, decryptors=2)
    with pytest.raises(ParameterError):
        Decryptor(simulation.keys[3], simulation.source("x"))
