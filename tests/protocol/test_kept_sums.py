"""Sums whose decryption has begun: they are kept until decryptors are back, or given up aloud."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from mphe.errors import LocalProtocolError
from mphe.roles.machine import Event, Output, Send
from mphe.roles.rounds import overlap
from mphe.roles.rounds.aggregator import Aggregator, AggregatorState
from mphe.roles.rounds.outcomes import Abandoned, Kept, Overlap, Retried, Summed
from mphe.roles.setup import returning
from mphe.server import Server
from mphe.wire.messages import (
    SERVER,
    DecryptionRequest,
    DecryptionShare,
    Join,
    Ready,
    Refusal,
    RoundStart,
)
from tests.protocol.support import aggregator_of, assert_exact, ready
from tests.simulation import Simulation, altering

KEEPING = AggregatorState.KEEPING


def kept_round(simulation: Simulation, *gone: int) -> None:
    """Run a round until these vanish instead of answering, and the sum is kept."""
    for index in gone:
        simulation.vanish_before(index, DecryptionShare, told=True)
    simulation.begin_round(simulation.random_updates())
    simulation.pump()
    assert aggregator_of(simulation).state is KEEPING


def ready_of(simulation: Simulation, index: int, share: bool = True) -> Ready:
    """Return what a client says that comes back, with its share of the key or without."""
    keys = simulation.keys[index]
    keys = keys if share else replace(keys, share=None)
    return returning.announce(keys, simulation.identities[index])


def back(simulation: Simulation, *clients: int) -> None:
    """Let clients come back over a new connection, as processes that did not die."""
    for index in clients:
        simulation.silent.discard(index)
        simulation.post(index, simulation.parties[index].reconnected())
    simulation.pump()


def events(simulation: Simulation, kind: type[Event]) -> list[Event]:
    return [event for party, event in simulation.events if party == SERVER and type(event) is kind]


def asked(outputs: list[Output]) -> list[DecryptionRequest]:
    sent = [output.message for output in outputs if isinstance(output, Send)]
    return [message for message in sent if isinstance(message, DecryptionRequest)]


# -- kept ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["hybrid", "direct"])
def test_the_sum_is_had_when_decryptors_are_back(mode: str) -> None:
    simulation = ready(4, 3, encryption=mode)
    updates = simulation.random_updates()
    kept_round(simulation, 1, 2)
    assert events(simulation, Kept) == [Kept(1, (1, 2))]
    assert aggregator_of(simulation).waiting_for() == (1, 2)
    back(simulation, 2)
    end = simulation.finish_round()
    assert_exact(end, updates, 1, 2, 3, 4)
    assert isinstance(end, Summed) and end.attempts == 3
    assert events(simulation, Retried) == [Retried(1, 2), Retried(1, 3)]


def test_a_verified_sum_is_had_when_decryptors_are_back() -> None:
    simulation = ready(4, 3, verified=True)
    updates = simulation.random_updates()
    kept_round(simulation, 1, 2)
    back(simulation, 1)
    assert_exact(simulation.finish_round(), updates, 1, 2, 3, 4)


def test_no_round_begins_while_a_sum_is_kept() -> None:
    simulation = ready(4, 3)
    kept_round(simulation, 1, 2)
    with pytest.raises(LocalProtocolError, match="not possible now"):
        aggregator_of(simulation).start_round(b"model", (3, 4))
    with pytest.raises(LocalProtocolError):
        aggregator_of(simulation).resume_at(1)
    assert aggregator_of(simulation).state is KEEPING


def test_losing_more_clients_does_no_harm_to_a_kept_sum() -> None:
    simulation = ready(4, 3)
    updates = simulation.random_updates()
    kept_round(simulation, 1, 2)
    assert aggregator_of(simulation).lost(3, 4) == []
    assert aggregator_of(simulation).waiting_for() == (1, 2, 3, 4)
    back(simulation, 1, 2)
    assert aggregator_of(simulation).state is KEEPING
    back(simulation, 3)
    assert_exact(simulation.finish_round(), updates, 1, 2, 3, 4)


def test_who_is_back_before_the_others_are_gone_is_counted() -> None:
    """Client 1 comes back in mid-decryption; nobody would be asked if that went unnoticed."""
    simulation = ready(4, 3)
    updates = simulation.random_updates()
    simulation.vanish_before(1, DecryptionShare, told=True)
    simulation.intercept = lambda sender, receiver, message: (
        [] if isinstance(message, DecryptionShare) and sender == 2 else [message]
    )
    simulation.begin_round(updates)
    simulation.pump()
    assert aggregator_of(simulation).waiting_for() == (2,)
    back(simulation, 1)
    simulation.deadline()
    assert_exact(simulation.finish_round(), updates, 1, 2, 3, 4)


def test_a_decryptor_that_wakes_up_late_is_asked_again() -> None:
    """It was never disconnected, so it says nothing but its late answer."""
    simulation = ready(3, 3)
    updates = simulation.random_updates()
    held: list[DecryptionShare] = []

    def hold(sender: int, receiver: int, message: object) -> list[object]:
        if isinstance(message, DecryptionShare) and sender == 2 and not held:
            held.append(message)
            return []
        return [message]

    simulation.intercept = hold  # type: ignore[assignment]
    simulation.begin_round(updates)
    simulation.pump()
    simulation.deadline()
    aggregator = aggregator_of(simulation)
    assert aggregator.state is KEEPING and aggregator.waiting_for() == (2,)
    simulation.push(SERVER, aggregator.receive(2, held[0]))
    simulation.pump()
    assert_exact(simulation.finish_round(), updates, 1, 2, 3)


def test_a_decryptor_that_hung_and_then_lost_its_connection_is_asked_again() -> None:
    simulation = ready(3, 3)
    updates = simulation.random_updates()
    simulation.vanish_before(2, DecryptionShare)
    simulation.begin_round(updates)
    simulation.pump()
    simulation.deadline()
    assert aggregator_of(simulation).waiting_for() == (2,)
    simulation.vanish(2)
    back(simulation, 2)
    assert_exact(simulation.finish_round(), updates, 1, 2, 3)


def test_the_state_of_a_server_that_keeps_a_sum_is_the_server() -> None:
    simulation = ready(4, 3)
    updates = simulation.random_updates()
    kept_round(simulation, 1, 2)
    simulation.host = Server.restore(simulation.host.state)
    assert aggregator_of(simulation).state is KEEPING
    assert aggregator_of(simulation).waiting_for() == (1, 2)
    back(simulation, 1)
    assert_exact(simulation.finish_round(), updates, 1, 2, 3, 4)


# -- given up --------------------------------------------------------------------------------------


def given_up(simulation: Simulation) -> Abandoned:
    end = simulation.finish_round()
    assert isinstance(end, Abandoned) and end.begun and end.attempts > 0
    assert end.reason.startswith("lost after decryption began: ")
    return end


def test_when_nobody_comes_back_the_sum_is_given_up_aloud() -> None:
    simulation = ready(4, 3)
    kept_round(simulation, 1, 2)
    end = given_up(simulation)
    assert end.reason.endswith("2 decryptors answer, 3 are needed")
    assert (end.contributors, end.missing) == ((1, 2, 3, 4), (1, 2))
    assert aggregator_of(simulation).state is AggregatorState.IDLE


def test_attempts_that_are_spent_end_a_kept_sum() -> None:
    simulation = ready(3, 3, max_attempts=2)
    kept_round(simulation, 1)
    simulation.vanish_before(1, DecryptionShare, told=True)
    back(simulation, 1)
    assert given_up(simulation).reason.endswith("no decryption in 2 attempts")


@pytest.mark.parametrize("rejoins", [True, False])
def test_a_decryptor_back_without_its_share_is_not_waited_for(rejoins: bool) -> None:
    simulation = ready(3, 3)
    kept_round(simulation, 1)
    message = Join(1, b"", b"", b"") if rejoins else ready_of(simulation, 1, share=False)
    simulation.push(SERVER, aggregator_of(simulation).receive(1, message))
    assert given_up(simulation).reason.endswith("2 decryptors answer, 3 are needed")


def test_a_decryptor_that_refuses_is_not_waited_for() -> None:
    simulation = ready(3, 3)
    name = simulation.session.transcript
    simulation.intercept = altering(
        DecryptionShare, lambda m: Refusal(1, m.attempt, "no", name), sender=2
    )
    simulation.begin_round(simulation.random_updates())
    simulation.pump()
    assert not events(simulation, Kept)
    given_up(simulation)


def test_without_a_request_nothing_was_begun_and_nothing_is_kept() -> None:
    simulation = ready(4, 3, min_contributors=2)
    simulation.vanish(1)
    simulation.vanish(2)
    end = simulation.run_round({i: u for i, u in simulation.random_updates().items() if i > 2})
    assert isinstance(end, Abandoned) and not end.begun and end.attempts == 0
    assert end.reason == "2 decryptors answer, 3 are needed"


# -- attempts that were used behind the server's back ----------------------------------------------


def rolled_back(simulation: Simulation) -> None:
    """Let a server that was in its third attempt go on from its state of the first."""
    simulation.vanish_before(1, DecryptionShare, told=True)
    held: list[bytes] = []

    def hold(sender: int, receiver: int, message: object) -> list[object]:
        if isinstance(message, DecryptionRequest) and message.attempt == 1 and not held:
            held.append(simulation.host.state)
        return [] if isinstance(message, DecryptionShare) and sender == 2 else [message]

    simulation.intercept = hold  # type: ignore[assignment]
    simulation.begin_round(simulation.random_updates())
    simulation.pump()
    back(simulation, 1)
    simulation.deadline()
    assert simulation.decryptors[3].answered(1) >= 2
    simulation.intercept = None
    simulation.host = Server.restore(held[0])


def test_a_server_that_lost_track_jumps_beyond_the_attempts_that_were_used() -> None:
    simulation = ready(4, 3)
    updates = simulation.random_updates()
    rolled_back(simulation)
    assert aggregator_of(simulation)._now.attempt == 1
    simulation.post(SERVER, simulation.host.lost(1, 2, 3, 4))
    assert aggregator_of(simulation).state is KEEPING
    back(simulation, 1, 2, 3, 4)
    end = simulation.finish_round()
    assert_exact(end, updates, 1, 2, 3, 4)
    assert "is not newer" in str(simulation.refusals[-1][1])


def test_the_jump_takes_one_attempt_however_many_were_used() -> None:
    simulation = ready(3, 3)
    updates = simulation.random_updates()
    sent, request = simulation.collect(updates)
    for attempt in range(1, 6):
        simulation.ask(replace(request, attempt=attempt))
    simulation.post(SERVER, simulation.host.lost(1, 2, 3))
    back(simulation, 1, 2, 3)
    end = simulation.finish_round()
    assert_exact(end, updates, 1, 2, 3)
    assert events(simulation, Retried) == [Retried(1, 2), Retried(1, 6)]
    assert len(sent) == 3


def test_one_liar_about_used_attempts_does_not_spend_them() -> None:
    simulation = ready(4, 3)
    updates = simulation.random_updates()
    name, most = simulation.session.transcript, simulation.parameters.max_attempts
    simulation.intercept = altering(
        DecryptionShare, lambda m: Refusal(1, m.attempt, "used", name, most), sender=1
    )
    end = simulation.run_round(updates)
    assert_exact(end, updates, 1, 2, 3, 4)
    assert isinstance(end, Summed) and end.attempts == 2


# -- the next contributors -------------------------------------------------------------------------


def invited(simulation: Simulation, *present: int) -> set[int] | str:
    """Start the next round with these; return who is sent the model, or why nobody is."""
    outputs = aggregator_of(simulation).start_round(b"model", present)
    reasons = [output.reason for output in outputs if isinstance(output, Abandoned)]
    sent = {
        o.receiver for o in outputs if isinstance(o, Send) and isinstance(o.message, RoundStart)
    }
    return reasons[0] if reasons else sent


def after_a_lost_sum(n: int, t: int, m: int, *present: int) -> Simulation:
    """Return a simulation in which the sum of these clients was given up."""
    simulation = ready(n, t, min_contributors=m)
    aggregator = aggregator_of(simulation)
    updates = simulation.random_updates()
    simulation.intercept = lambda sender, receiver, message: (
        [] if isinstance(message, DecryptionShare) else [message]
    )
    simulation.begin_round({i: updates[i] for i in present}, present=present)
    simulation.pump()
    while aggregator.state is not AggregatorState.IDLE:
        simulation.deadline()
    simulation.intercept = None
    assert aggregator._lost == [frozenset(present)]
    return simulation


def test_the_same_clients_may_contribute_again() -> None:
    assert invited(after_a_lost_sum(5, 2, 3, 1, 2, 3, 4), 1, 2, 3, 4) == {1, 2, 3, 4}


def test_too_few_newcomers_are_left_out() -> None:
    assert invited(after_a_lost_sum(6, 2, 3, 1, 2, 3, 4), 1, 2, 3, 4, 5, 6) == {1, 2, 3, 4}


def test_enough_newcomers_are_let_in() -> None:
    everybody = set(range(1, 8))
    assert invited(after_a_lost_sum(7, 2, 3, 1, 2, 3, 4), *everybody) == everybody


def test_so_many_sit_out_that_those_who_are_away_are_not_alone() -> None:
    assert invited(after_a_lost_sum(6, 2, 3, 1, 2, 3, 4, 5, 6), 1, 2, 3, 4, 5) == {1, 2, 3}


def test_where_that_cannot_be_rounds_are_withheld_and_then_it_is_said() -> None:
    simulation = after_a_lost_sum(4, 3, 3, 1, 2, 3, 4)
    aggregator = aggregator_of(simulation)
    for _ in range(3):
        reason = invited(simulation, 1, 2, 3)
        assert isinstance(reason, str) and "would show that of clients [4]" in reason
        assert aggregator.state is AggregatorState.IDLE
    updates = simulation.random_updates()
    end = simulation.run_round(updates, present=[1, 2, 3])
    assert_exact(end, updates, 1, 2, 3)
    assert events(simulation, Overlap) == [Overlap(5, (4,))]
    # The model has changed: there is nothing left to subtract.
    assert aggregator._lost == [] and aggregator._withheld == 0


def test_who_does_not_answer_is_not_exposed_either() -> None:
    """All were invited, one stayed silent: what is there is not decrypted."""
    simulation = after_a_lost_sum(4, 3, 3, 1, 2, 3, 4)
    updates = simulation.random_updates()
    end = simulation.run_round({i: updates[i] for i in (1, 2, 3)}, present=[1, 2, 3, 4])
    assert isinstance(end, Abandoned) and not end.begun and end.attempts == 0
    assert "would show that of clients [4]" in end.reason
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)


def test_what_was_lost_outlives_the_server() -> None:
    simulation = after_a_lost_sum(4, 3, 3, 1, 2, 3, 4)
    assert isinstance(invited(simulation, 1, 2, 3), str)
    again = Server.restore(simulation.host.state).aggregator
    assert isinstance(again, Aggregator)
    assert (again._lost, again._withheld) == ([frozenset({1, 2, 3, 4})], 1)


def test_of_several_lost_sums_none_is_forgotten() -> None:
    def whole(contributors: Collection[int]) -> list[Collection[int]]:
        return [contributors]

    lost = [frozenset({1, 2, 3, 4}), frozenset({1, 2, 3, 5, 6, 7})]
    assert overlap.exposed(lost, [{1, 2, 3, 4}], 3) == {4}
    assert overlap.exposed(lost, [{8, 9, 10}], 3) == set()
    assert overlap.invited(lost, range(1, 8), 3, whole) == frozenset()
    assert overlap.invited(lost, range(1, 12), 3, whole) == frozenset(range(1, 12))


def test_who_may_not_contribute_beside_a_lost_sum_may_decrypt() -> None:
    """Clients 5 and 6 may not contribute in round 2, but five decryptors are needed.

    Weakened: if they were not asked either, every round from then on would be lost.
    """
    simulation = ready(6, 5, min_contributors=3)
    updates = simulation.random_updates()
    simulation.intercept = lambda sender, receiver, message: (
        [] if isinstance(message, DecryptionShare) and sender in (4, 5) else [message]
    )
    end = simulation.run_round({i: updates[i] for i in (1, 2, 3, 4)}, present=range(1, 7))
    assert isinstance(end, Abandoned) and end.begun
    simulation.intercept = None
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4, 5, 6)


def test_who_is_silent_among_the_few_that_are_invited_cannot_stop_training() -> None:
    """Client 6 is away and client 3 never answers; 4 and 5 are left out for the sake of 6.

    Weakened: if such rounds did not count as withheld, all others would be lost the same way.
    """
    simulation = after_a_lost_sum(6, 2, 3, 1, 2, 3, 4, 5, 6)
    updates = simulation.random_updates()
    there = {i: updates[i] for i in (1, 2, 4, 5)}
    for _ in range(3):
        end = simulation.run_round(there, present=[1, 2, 3, 4, 5])
        assert isinstance(end, Abandoned) and "2 updates arrived" in end.reason
    assert_exact(simulation.run_round(there, present=[1, 2, 3, 4, 5]), updates, 1, 2, 4, 5)
