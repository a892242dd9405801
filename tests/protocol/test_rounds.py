"""Rounds: exact sums, drop-outs, retries, and what a peer's mistake costs whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mphe.aggregator import Abandoned, Aggregator, Late, Summed
from mphe.aggregator import State as AggregatorState
from mphe.codec import MESSAGE_TYPES
from mphe.contributor import Contributor, Counted, TrainOn
from mphe.contributor import State as ContributorState
from mphe.decryptor import Decryptor
from mphe.errors import (
    DuplicateMessage,
    EncodingError,
    LocalProtocolError,
    MalformedMessage,
    ParameterError,
    RemoteProtocolError,
    UnexpectedSender,
)
from mphe.machine import Machine, Output, Send
from mphe.messages import (
    SERVER,
    Commit,
    Commitments,
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Finish,
    Join,
    KeyReveal,
    Message,
    Qualified,
    Ready,
    Refusal,
    Reveal,
    Roster,
    RoundEnd,
    RoundStart,
    SessionOpen,
    Welcome,
)
from mphe.noise import KEY_PAIRS
from mphe.onetime import OneTimeCipher
from mphe.ring import Small
from mphe.sampling import RandomSource
from tests.simulation import Simulation, altering, snapshot

SIZES = [(n, t) for n in range(2, 7) for t in range(2, n + 1)]
MODES = ("hybrid", "direct")

SAMPLES: dict[type, Message] = {
    type(message): message
    for message in (
        Join(1, b"", b"", b""),
        Roster(b"", ()),
        Commit(1, b"", b""),
        Commitments(()),
        Reveal(KeyReveal(1, b"", b"", b""), ()),
        Qualified((), ()),
        Ready(b"", ()),
        SessionOpen((1, 2)),
        Welcome((), (), (), (), ()),
        RoundStart(9, b""),
        Contribution(1, b"", b"", b"", b""),
        DecryptionRequest(1, 1, (1, 2), (1, 2), b""),
        DecryptionShare(1, 1, b""),
        Refusal(1, 1, ""),
        RoundEnd(1, ()),
        Finish(""),
    )
}


def ready(n: int, t: int, length: int = 60, **options: object) -> Simulation:
    """Return a simulation whose key is confirmed."""
    simulation = Simulation(n, t, length, **options)  # type: ignore[arg-type]
    simulation.run_setup()
    assert simulation.aggregator is not None
    return simulation


def aggregator_of(simulation: Simulation) -> Aggregator:
    """Return the server's role in the rounds."""
    assert simulation.aggregator is not None
    return simulation.aggregator


def total_of(updates: dict[int, Small], contributors: tuple[int, ...]) -> Small:
    """Return the plain sum of exactly these updates."""
    return sum((updates[i] for i in contributors), np.zeros_like(updates[contributors[0]]))


def assert_exact(end: Summed | Abandoned, updates: dict[int, Small], *who: int) -> None:
    """The round gave the sum of exactly these updates, to the last bit."""
    assert isinstance(end, Summed), end
    assert end.contributors == who
    assert np.array_equal(end.total, total_of(updates, who))


def kinds(outputs: list[Output]) -> list[str]:
    """Return the names of events and sent messages."""
    return [type(o.message if isinstance(o, Send) else o).__name__ for o in outputs]


def collecting(simulation: Simulation, senders: tuple[int, ...] = ()) -> dict[int, Contribution]:
    """Start a round by hand, deliver some contributions; return all."""
    aggregator = aggregator_of(simulation)
    aggregator.start_round(b"model", simulation.identities)
    updates = simulation.random_updates()
    made = {i: simulation.contribution(i, aggregator.round, updates[i]) for i in updates}
    for index in senders:
        aggregator.receive(index, made[index])
    return made


# -- exactness -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("n", "t"), SIZES)
def test_decrypted_sum_equals_the_integer_sum(n: int, t: int, mode: str) -> None:
    simulation = ready(n, t, encryption=mode)
    for seed in (1, 2):
        updates = simulation.random_updates(seed=seed)
        assert_exact(simulation.run_round(updates), updates, *range(1, n + 1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", range(2, 7))
def test_sum_is_exact_without_robustness(n: int, mode: str) -> None:
    simulation = ready(n, n, robust=False, encryption=mode)
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates), updates, *range(1, n + 1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("length", [1, 2, 4097, 9001])
def test_sum_is_exact_for_awkward_lengths(length: int, mode: str) -> None:
    simulation = ready(3, 2, length, encryption=mode)
    updates = simulation.random_updates() if length > 1 else {i: np.array([i]) for i in (1, 2, 3)}
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3)


@pytest.mark.parametrize("mode", MODES)
def test_largest_values_of_all_clients_do_not_overflow_a_slot(mode: str) -> None:
    simulation = ready(5, 3, encryption=mode)
    updates = {i: np.full(60, (1 << 16) - 1) for i in range(1, 6)}
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4, 5)


def test_clients_that_hold_no_share_contribute() -> None:
    simulation = ready(5, 2, decryptors=3)
    updates = simulation.random_updates()
    assert set(simulation.decryptors) == {1, 2, 3}
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wrong", [-1, 1 << 16])
def test_encrypting_a_value_outside_its_slot_is_refused(mode: str, wrong: int) -> None:
    simulation = ready(2, 2, encryption=mode)
    values = np.zeros(60, np.int64)
    values[7] = wrong
    with pytest.raises(EncodingError):
        simulation.contributors[1].encrypt(values)


# -- drop-outs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("n", "t"), SIZES)
def test_round_survives_every_permitted_number_of_dropouts_before_upload(
    n: int, t: int, mode: str
) -> None:
    simulation = ready(n, t, encryption=mode)
    updates = simulation.random_updates()
    for alive in range(n, t - 1, -1):
        present = {i: updates[i] for i in range(1, alive + 1)}
        # The others received the model; their absence shows at the deadline.
        end = simulation.run_round(present)
        assert_exact(end, updates, *range(1, alive + 1))
        simulation.vanish(alive)
    end = simulation.run_round(updates)
    assert isinstance(end, Abandoned) and end.error.round == n - t + 2
    assert end.error.missing == tuple(range(t, n + 1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("n", "t", "dropouts"), [(n, t, d) for n, t in SIZES for d in range(n - t + 2)]
)
def test_round_survives_exactly_n_minus_t_dropouts_before_decryption(
    n: int, t: int, dropouts: int, mode: str
) -> None:
    simulation = ready(n, t, encryption=mode)
    updates = simulation.random_updates()
    # The first contributors are asked first, so these are the ones that matter.
    for index in range(1, dropouts + 1):
        simulation.vanish_before(index, DecryptionShare)
    end = simulation.run_round(updates)
    if dropouts <= n - t:
        assert_exact(end, updates, *range(1, n + 1))
    else:
        assert isinstance(end, Abandoned)
        assert set(end.error.missing) <= set(range(1, dropouts + 1))


@pytest.mark.parametrize("told", [True, False])
def test_update_counts_although_its_sender_vanished_after_the_upload(told: bool) -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()
    simulation.vanish_after(1, Contribution, told=told)
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)


def test_without_robustness_one_dropout_abandons_the_round() -> None:
    simulation = ready(3, 3, robust=False)
    simulation.vanish_before(2, DecryptionShare)
    end = simulation.run_round(simulation.random_updates())
    assert isinstance(end, Abandoned) and end.error.missing == (2,)


def test_next_round_succeeds_after_an_abandoned_one() -> None:
    simulation = ready(3, 2)
    updates = simulation.random_updates()
    assert isinstance(simulation.run_round({1: updates[1]}), Abandoned)
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3)


def test_client_that_was_away_for_a_round_takes_part_in_the_next() -> None:
    simulation = ready(3, 2)
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates, present=[1, 2]), updates, 1, 2)
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3)


def test_round_without_anybody_is_abandoned_at_once() -> None:
    simulation = ready(3, 2)
    assert kinds(aggregator_of(simulation).start_round(b"", [])) == ["Abandoned"]


def test_round_closes_without_a_deadline_once_the_last_missing_client_is_lost() -> None:
    simulation = ready(3, 2)
    aggregator = aggregator_of(simulation)
    collecting(simulation, (1, 2))
    assert aggregator.waiting_for() == (3,)
    assert kinds(aggregator.lost(3)) == ["Closed", "DecryptionRequest", "DecryptionRequest"]


def test_losing_a_bystander_during_decryption_changes_nothing() -> None:
    simulation = ready(3, 2)
    aggregator = aggregator_of(simulation)
    collecting(simulation, (1, 2, 3))
    assert aggregator.waiting_for() == (1, 2)
    assert aggregator.lost(3) == []
    assert aggregator.waiting_for() == (1, 2)


# -- who is told -----------------------------------------------------------------------------------


def test_round_end_goes_to_those_present_and_says_who_counted() -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()
    simulation.vanish_before(4, Contribution, told=True)
    simulation.run_round({i: updates[i] for i in (1, 2, 4)})
    told = {r: m for _, r, m in simulation.log if isinstance(m, RoundEnd)}
    assert told == {i: RoundEnd(1, (1, 2)) for i in (1, 2, 3)}
    counted = {i: e.counted for i, e in simulation.events if isinstance(e, Counted)}
    assert counted == {1: True, 2: True, 3: False}


def test_abandoned_round_tells_everybody_that_nobody_counted() -> None:
    simulation = ready(3, 2)
    simulation.run_round({1: simulation.random_updates()[1]})
    told = [m for _, _, m in simulation.log if isinstance(m, RoundEnd)]
    assert told == [RoundEnd(1, ())] * 3


def test_fewer_updates_than_min_contributors_are_never_decrypted() -> None:
    simulation = ready(5, 2, min_contributors=4)
    updates = simulation.random_updates()
    end = simulation.run_round({i: updates[i] for i in (1, 2, 3)})
    assert isinstance(end, Abandoned) and end.attempts == 0
    asked = [m for _, _, m in simulation.log if isinstance(m, DecryptionRequest) and m.round]
    assert asked == []
    assert_exact(simulation.run_round({i: updates[i] for i in (1, 2, 3, 5)}), updates, 1, 2, 3, 5)


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
    assert aggregator.receive(3, made[3]) == [Late(3)]
    assert without_attendance() == before


def test_contribution_to_an_earlier_round_is_late_in_the_next() -> None:
    simulation = ready(3, 2)
    aggregator = aggregator_of(simulation)
    made = collecting(simulation)
    aggregator.deadline_passed()
    aggregator.start_round(b"model", (1, 2, 3))
    assert aggregator.receive(3, made[3]) == [Late(3)]
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
    assert aggregator.receive(2, answer.message) == [Late(2)]
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
    ],
)
def test_wrong_share_is_refused_and_changes_nothing(
    sender: int, change: dict[str, object], error: type[RemoteProtocolError]
) -> None:
    simulation = ready(3, 2)
    aggregator = aggregator_of(simulation)
    collecting(simulation, (1, 2, 3))
    aggregator.receive(1, DecryptionShare(1, 1, bytes(simulation.plan.share_bytes)))
    before = snapshot(aggregator)
    share = DecryptionShare(1, 1, bytes(simulation.plan.share_bytes))
    with pytest.raises(error) as caught:
        aggregator.receive(sender, replace(share, **change))  # type: ignore[arg-type]
    assert caught.value.sender == sender
    assert snapshot(aggregator) == before


# -- retries ---------------------------------------------------------------------------------------


def attempts_of(simulation: Simulation) -> dict[int, tuple[int, ...]]:
    """Return the active set of every attempt of a training round."""
    requests = [m for _, _, m in simulation.log if isinstance(m, DecryptionRequest) and m.round]
    return {m.attempt: m.active for m in requests}


@pytest.mark.parametrize("told", [True, False])
def test_retry_asks_another_set_under_the_next_attempt(told: bool) -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()
    simulation.vanish_before(2, DecryptionShare, told=told)
    end = simulation.run_round(updates)
    assert_exact(end, updates, 1, 2, 3, 4)
    assert isinstance(end, Summed) and end.attempts == 2
    assert attempts_of(simulation) == {1: (1, 2), 2: (1, 3)}


def test_refusing_decryptor_is_replaced() -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()
    simulation.intercept = altering(DecryptionShare, lambda m: Refusal(1, 1, "no"), sender=1)
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    assert attempts_of(simulation) == {1: (1, 2), 2: (2, 3)}


@pytest.mark.parametrize(("limit", "completes"), [(1, False), (2, False), (3, True)])
def test_max_attempts_bounds_the_retries(limit: int, completes: bool) -> None:
    simulation = ready(5, 2, max_attempts=limit)
    updates = simulation.random_updates()
    for index in (2, 3):
        simulation.vanish_before(index, DecryptionShare, told=True)
    end = simulation.run_round(updates)
    assert isinstance(end, Summed) is completes
    assert len(attempts_of(simulation)) == limit


def test_decryptors_that_contributed_are_asked_before_those_that_did_not() -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()
    simulation.run_round({i: updates[i] for i in (3, 4)})
    assert attempts_of(simulation) == {1: (3, 4)}


def test_unconfirmed_decryptor_is_never_asked() -> None:
    simulation = ready(4, 2)
    simulation.aggregator = Aggregator(
        replace(aggregator_of(simulation).session, decryptors=(1, 2, 4))
    )
    simulation.vanish_before(1, DecryptionShare)
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    assert attempts_of(simulation) == {1: (1, 2), 2: (2, 4)}


# -- what parses and is wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(("n", "t"), [(2, 2), (4, 2), (5, 4)])
def test_forged_one_time_key_is_found_and_never_published(n: int, t: int) -> None:
    simulation = ready(n, t)
    updates = simulation.random_updates()
    other = simulation.contribution(1, 1, updates[1])
    simulation.intercept = altering(Contribution, lambda m: replace(m, body=other.body), sender=1)
    end = simulation.run_round(updates)
    assert isinstance(end, Abandoned) and "forged" in end.error.reason
    assert end.attempts == 2
    simulation.intercept = None
    assert_exact(simulation.run_round(updates), updates, *range(1, n + 1))


def test_forged_share_costs_one_attempt_when_another_set_is_honest() -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()
    simulation.intercept = altering(
        DecryptionShare, lambda m: replace(m, share=bytes(len(m.share))), sender=1
    )
    end = simulation.run_round(updates)
    assert_exact(end, updates, 1, 2, 3, 4)
    assert isinstance(end, Summed) and end.attempts == 2


# -- every state and message -----------------------------------------------------------------------

ROUND_MESSAGES = {Contribution, DecryptionShare, Refusal}
AGGREGATOR_TAKES = {state: {Join, *ROUND_MESSAGES} for state in AggregatorState}
CONTRIBUTOR_TAKES = {state: {RoundStart, RoundEnd} for state in ContributorState}


def aggregator_in(state: AggregatorState) -> Aggregator:
    """Return an aggregator in that state."""
    simulation = ready(3, 2)
    if state is not AggregatorState.IDLE:
        everybody = (1, 2, 3) if state is AggregatorState.DECRYPTING else (1,)
        collecting(simulation, everybody)
    assert aggregator_of(simulation).state is state
    return aggregator_of(simulation)


def contributor_in(state: ContributorState) -> Contributor:
    """Return contributor 1 in that state, in round 1."""
    simulation = ready(2, 2)
    contributor = simulation.contributors[1]
    contributor.receive(SERVER, RoundStart(1, b""))
    if state is ContributorState.IDLE:
        contributor.receive(SERVER, RoundEnd(1, ()))
    elif state is ContributorState.SENT:
        contributor.contribute(1, contributor.encrypt(np.zeros(60, np.int64)))
    assert contributor.state is state
    return contributor


def assert_only_takes(role: Machine, takes: set[type], sender: int) -> None:
    """Every other message raises and changes nothing."""
    before = snapshot(role)
    for kind in MESSAGE_TYPES:
        if kind in takes:
            assert (role.state, kind) in role.TRANSITIONS
            continue
        with pytest.raises(RemoteProtocolError) as caught:
            role.receive(sender, SAMPLES[kind])
        assert caught.value.sender == sender
        assert snapshot(role) == before


@pytest.mark.parametrize("state", AggregatorState)
def test_aggregator_refuses_what_its_state_does_not_expect(state: AggregatorState) -> None:
    assert_only_takes(aggregator_in(state), AGGREGATOR_TAKES[state], 1)


@pytest.mark.parametrize("state", ContributorState)
def test_contributor_refuses_what_its_state_does_not_expect(state: ContributorState) -> None:
    assert_only_takes(contributor_in(state), CONTRIBUTOR_TAKES[state], SERVER)


def test_decryptor_refuses_what_is_no_request() -> None:
    decryptor: Decryptor = ready(2, 2).decryptors[1]
    assert_only_takes(decryptor, {DecryptionRequest}, SERVER)


@pytest.mark.parametrize("kind", [Contribution, DecryptionShare, Refusal])
def test_idle_aggregator_takes_stragglers_as_late(kind: type) -> None:
    aggregator = aggregator_in(AggregatorState.IDLE)
    before = snapshot(aggregator)
    assert aggregator.receive(2, SAMPLES[kind]) == [Late(2)]
    assert snapshot(aggregator) == before


@pytest.mark.parametrize("kind", [DecryptionShare, Refusal])
def test_share_or_refusal_while_collecting_is_late(kind: type) -> None:
    aggregator = aggregator_in(AggregatorState.COLLECTING)
    before = snapshot(aggregator)
    assert aggregator.receive(2, SAMPLES[kind]) == [Late(2)]
    assert snapshot(aggregator) == before


@pytest.mark.parametrize("state", [AggregatorState.COLLECTING, AggregatorState.DECRYPTING])
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
    state: ContributorState, sender: int, message: Message
) -> None:
    contributor = contributor_in(state)
    before = snapshot(contributor)
    with pytest.raises(RemoteProtocolError):
        contributor.receive(sender, message)
    assert snapshot(contributor) == before


@pytest.mark.parametrize("state", ContributorState)
def test_newer_round_replaces_whatever_went_before(state: ContributorState) -> None:
    contributor = contributor_in(state)
    payload = contributor.encrypt(np.zeros(60, np.int64))
    assert contributor.receive(SERVER, RoundStart(3, b"m")) == [TrainOn(3, b"m")]
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


# -- memory from round to round --------------------------------------------------------------------


def test_session_has_no_more_rounds_than_its_budget_covers() -> None:
    simulation = ready(2, 2, rounds=1)
    updates = simulation.random_updates()
    assert_exact(simulation.run_round(updates), updates, 1, 2)
    with pytest.raises(LocalProtocolError):
        aggregator_of(simulation).start_round(b"", (1, 2))


def test_clients_lost_together_cost_one_attempt() -> None:
    simulation = ready(5, 2)
    aggregator = aggregator_of(simulation)
    collecting(simulation, (1, 2, 3, 4, 5))
    (first, *_) = sent = [o.message for o in aggregator.lost(1, 2) if isinstance(o, Send)]
    assert isinstance(first, DecryptionRequest) and len(sent) == 2
    assert (first.attempt, first.active) == (2, (3, 4))


def test_decryptor_that_failed_is_asked_last_in_the_next_round() -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()
    simulation.vanish_before(1, DecryptionShare)
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    simulation.silent.clear()
    simulation.log.clear()
    # Client 1 missed the end of the round; the next one does not mind.
    assert_exact(simulation.run_round(updates), updates, 1, 2, 3, 4)
    assert attempts_of(simulation) == {1: (2, 3)}


@pytest.mark.parametrize("mode", MODES)
def test_forged_shares_never_lead_to_a_published_sum(mode: str) -> None:
    simulation = ready(3, 3, encryption=mode)
    simulation.intercept = altering(
        DecryptionShare, lambda m: replace(m, share=bytes(len(m.share))), sender=1
    )
    assert isinstance(simulation.run_round(simulation.random_updates()), Abandoned)


def test_payload_is_never_sent_twice() -> None:
    """A one-time key that served two rounds would be in two sums."""
    contributor = contributor_in(ContributorState.WORKING)
    payload = contributor.encrypt(np.zeros(60, np.int64))
    contributor.contribute(1, payload)
    contributor.receive(SERVER, RoundStart(2, b""))
    with pytest.raises(LocalProtocolError):
        contributor.contribute(2, payload)


def test_silent_decryptor_is_not_asked_again_in_the_same_round() -> None:
    simulation = ready(3, 3)
    simulation.vanish_before(2, DecryptionShare)
    end = simulation.run_round(simulation.random_updates())
    assert isinstance(end, Abandoned) and end.error.missing == (2,)
    assert end.attempts == 1


# -- each range check by itself --------------------------------------------------------------------


def test_error_of_a_body_out_of_range_is_found_although_the_values_are_right() -> None:
    simulation = ready(3, 2)
    updates = simulation.random_updates()
    made = {i: simulation.contribution(i, 1, updates[i]) for i in updates}
    payload = simulation.plan.payload
    assert payload is not None
    shares = [simulation.read_share(s) for s in simulation.ask(simulation.request(made)).values()]
    for shift, plausible in ((0, True), (payload.noise_bits - 3, False)):
        adding = simulation.adding(made)
        forged = adding.parse(made[1])
        for block in forged.c0 + forged.c1 + forged.body:
            block[:] = 0
        forged.body[0][0, 5] = 1 << shift
        adding.add(forged)
        assert (adding.recover(shares, 3) is not None) is plausible


@pytest.mark.parametrize(("largest", "accepted"), [(3 * KEY_PAIRS, True), (128, False)])
def test_one_time_key_out_of_range_is_found_although_its_body_matches(
    largest: int, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = ready(3, 2)
    updates = simulation.random_updates()
    honest_key = OneTimeCipher.gen_key
    drawn = iter([0, 0, largest])

    def insecure_chosen_key(cipher: OneTimeCipher, source: RandomSource) -> Small:
        key = honest_key(cipher, source)
        key[7] = next(drawn)
        return key

    monkeypatch.setattr(OneTimeCipher, "gen_key", insecure_chosen_key)
    made = {i: simulation.contribution(i, 1, updates[i]) for i in updates}
    total = simulation.decrypt(made, simulation.request(made))
    assert (total is not None) is accepted


@pytest.mark.parametrize(
    ("value", "accepted"), [(3 * 65535, True), (3 * 65535 + 1, False), (1 << 22, False)]
)
def test_sum_that_no_honest_clients_can_have_is_not_published(value: int, accepted: bool) -> None:
    """Direct mode: one slot too large; and bits above the last slot."""
    simulation = ready(3, 2, encryption="direct")
    layout = simulation.plan.threshold
    assert layout.slots == 1 and layout.slot_bits == 18
    made = {i: simulation.contribution(i, 1, np.zeros(60, np.int64)) for i in (1, 2, 3)}
    shares = [simulation.read_share(s) for s in simulation.ask(simulation.request(made)).values()]
    adding = simulation.adding(made)
    forged = adding.parse(made[1])
    for block in forged.c0 + forged.c1:
        block[:] = 0
    for limb in range(3):
        forged.c0[0][limb, 5] = (value << layout.noise_bits) >> 32 * limb & 0xFFFFFFFF
    adding.add(forged)
    total = adding.recover(shares, 3)
    assert (total is not None) is accepted
    assert total is None or total[5] == value
