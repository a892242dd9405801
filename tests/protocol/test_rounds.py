"""Rounds: who is told, and what a late, doubled or malformed message costs whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mphe.errors import (
    DuplicateMessage,
    LocalProtocolError,
    MalformedMessage,
    RemoteProtocolError,
    UnexpectedSender,
)
from mphe.roles.machine import Send
from mphe.roles.rounds.collecting import Outdated
from mphe.roles.rounds.contributor import RoundEnded
from mphe.roles.rounds.outcomes import Abandoned
from mphe.wire.messages import (
    SERVER,
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Message,
    RoundEnd,
)
from tests.protocol.support import MODES, aggregator_of, assert_exact, collecting, ready
from tests.simulation import altering, snapshot

# -- who is told -----------------------------------------------------------------------------------


def test_round_end_goes_to_those_present_and_says_who_counted() -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()
    simulation.vanish_before(4, Contribution, told=True)
    simulation.run_round({i: updates[i] for i in (1, 2, 4)})
    told = {r: m for _, r, m in simulation.log if isinstance(m, RoundEnd)}
    assert told == {i: RoundEnd(1, (1, 2), simulation.session.transcript) for i in (1, 2, 3)}
    counted = {i: e.counted for i, e in simulation.events if isinstance(e, RoundEnded)}
    assert counted == {1: True, 2: True, 3: False}


def test_abandoned_round_tells_everybody_that_nobody_counted() -> None:
    simulation = ready(3, 2)
    simulation.run_round({1: simulation.random_updates()[1]})
    told = [m for _, _, m in simulation.log if isinstance(m, RoundEnd)]
    assert told == [RoundEnd(1, (), simulation.session.transcript)] * 3


def test_fewer_updates_than_min_contributors_are_never_decrypted() -> None:
    simulation = ready(5, 2, min_contributors=4)
    updates = simulation.random_updates()
    end = simulation.run_round({i: updates[i] for i in (1, 2, 3)})
    assert isinstance(end, Abandoned) and end.attempts == 0
    asked = [m for _, _, m in simulation.log if isinstance(m, DecryptionRequest) and m.round]
    assert asked == []
    assert_exact(simulation.run_round({i: updates[i] for i in (1, 2, 3, 5)}), updates, 1, 2, 3, 5)


def test_session_has_no_more_rounds_than_its_budget_covers() -> None:
    simulation = ready(2, 2, rounds=1)
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates), updates, 1, 2)
    with pytest.raises(LocalProtocolError):
        aggregator_of(simulation).start_round(b"", (1, 2))


# -- late, twice, malformed ------------------------------------------------------------------------


def test_late_contribution_is_left_out_and_nobody_is_blamed() -> None:
    simulation = ready(3, 2)
    aggregator = aggregator_of(simulation)
    made = collecting(simulation, (1, 2))
    aggregator.deadline_passed()

    def without_attendance() -> dict[str, Any]:
        # Only the note that client 3 is alive may change.
        return {k: v for k, v in snapshot(aggregator).items() if k != "_attendance"}

    before = without_attendance()
    assert aggregator.receive(3, made[3]) == [Outdated(3)]
    assert without_attendance() == before


def test_contribution_to_an_earlier_round_is_late_in_the_next() -> None:
    simulation = ready(3, 2)
    aggregator = aggregator_of(simulation)
    made = collecting(simulation)
    aggregator.deadline_passed()
    aggregator.start_round(b"model", (1, 2, 3))
    assert aggregator.receive(3, made[3]) == [Outdated(3)]
    assert aggregator.waiting_for() == (1, 2, 3)


def test_share_of_an_earlier_attempt_is_late() -> None:
    simulation = ready(3, 2)
    aggregator = aggregator_of(simulation)
    made = collecting(simulation)
    outputs = [o for i in made for o in aggregator.receive(i, made[i])]
    requests = [o.message for o in outputs if isinstance(o, Send)]
    aggregator.lost(1)
    (answer,) = simulation.decryptors[2].receive(SERVER, requests[1])
    assert isinstance(answer, Send)
    assert aggregator.receive(2, answer.message) == [Outdated(2)]
    assert aggregator.waiting_for() == (2, 3)


@pytest.mark.parametrize(
    ("sender", "change", "error"),
    [
        (1, {}, DuplicateMessage),
        (2, {"round": 2}, RemoteProtocolError),
        (9, {}, UnexpectedSender),
        (2, {"c0": b""}, MalformedMessage),
        (2, {"c1": b"\xff" * 49152}, MalformedMessage),
        (2, {"c1": b""}, MalformedMessage),
        (2, {"body": b"x"}, MalformedMessage),
    ],
)
def test_wrong_contribution_is_refused_and_changes_nothing(
    sender: int, change: dict[str, object], error: type[RemoteProtocolError]
) -> None:
    simulation = ready(3, 2)
    aggregator = aggregator_of(simulation)
    made = collecting(simulation, (1,))
    before = snapshot(aggregator)
    with pytest.raises(error) as caught:
        aggregator.receive(sender, replace(made.get(sender, made[1]), **change))  # type: ignore[arg-type]
    assert caught.value.sender == sender
    assert snapshot(aggregator) == before


def test_body_in_direct_mode_is_malformed() -> None:
    simulation = ready(2, 2, encryption="direct")
    made = collecting(simulation)
    with pytest.raises(MalformedMessage):
        aggregator_of(simulation).receive(1, replace(made[1], body=b"x"))


@pytest.mark.parametrize("mode", MODES)
def test_malformed_contribution_costs_its_sender_only(mode: str) -> None:
    simulation = ready(4, 2, encryption=mode)
    updates = simulation.random_updates()
    simulation.intercept = altering(Contribution, lambda m: replace(m, c0=m.c0[:-1]), sender=2)
    assert_exact(simulation.run_round(updates), updates, 1, 3, 4)
    assert [(r, e.sender) for r, e in simulation.refusals] == [(SERVER, 2)]


def test_duplicate_contribution_costs_its_sender_its_place_but_is_counted_once() -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()

    def twice(sender: int, receiver: int, message: Message) -> list[Message]:
        again = isinstance(message, Contribution) and sender == 2
        return [message, message] if again else [message]

    simulation.intercept = twice
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    assert [type(e) for _, e in simulation.refusals] == [DuplicateMessage]


@pytest.mark.parametrize(
    ("sender", "change", "error"),
    [
        (1, {}, DuplicateMessage),
        (3, {}, UnexpectedSender),
        (2, {"share": b""}, MalformedMessage),
        (2, {"share": bytes(1 << 20)}, MalformedMessage),
        (2, {"transcript": bytes(32)}, RemoteProtocolError),
    ],
)
def test_wrong_share_is_refused_and_changes_nothing(
    sender: int, change: dict[str, object], error: type[RemoteProtocolError]
) -> None:
    simulation = ready(3, 2)
    aggregator = aggregator_of(simulation)
    collecting(simulation, (1, 2, 3))
    name = simulation.session.transcript
    share = DecryptionShare(1, 1, bytes(simulation.plan.share_bytes), name)
    aggregator.receive(1, share)
    before = snapshot(aggregator)
    with pytest.raises(error) as caught:
        aggregator.receive(sender, replace(share, **change))  # type: ignore[arg-type]
    assert caught.value.sender == sender
    assert snapshot(aggregator) == before
