"""What a decryptor refuses (docs/protocol.md, A round), and that a refusal changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mphe.errors import RefusedDecryption, UnexpectedSender
from mphe.roles.machine import Send
from mphe.roles.rounds.decryptor import Decryptor, Memory
from mphe.roles.setup import confirmation
from mphe.wire.messages import SERVER, DecryptionRequest, DecryptionShare, Draw
from tests.simulation import SeededSource, Simulation, altering, only_group, rephrased, snapshot


def session(**options: Any) -> tuple[Simulation, Decryptor, DecryptionRequest]:
    """Return a confirmed session, decryptor 2 of it and a request that it would answer.

    6 clients, 4 of them decryptors, t = 3, sums of at least 3.
    """
    simulation = Simulation(6, 3, decryptors=4, **options)
    simulation.run_setup()
    updates = simulation.random_updates([1, 2, 5, 6])
    made = {i: simulation.contribution(i, 1, updates[i]) for i in updates}
    return simulation, simulation.decryptors[2], simulation.request(made)


def answer(decryptor: Decryptor, request: DecryptionRequest) -> bytes:
    """Return the share that a decryptor sends."""
    (output,) = decryptor.receive(SERVER, request)
    assert isinstance(output, Send) and isinstance(output.message, DecryptionShare)
    assert (output.receiver, output.message.round) == (SERVER, request.round)
    assert output.message.attempt == request.attempt
    return output.message.share


def memory(decryptor: Decryptor) -> Any:
    """Return all that a decryptor remembers; the transform of λ·s is a cache."""
    return {name: item for name, item in snapshot(decryptor).items() if name != "_scaled"}


def assert_refused(decryptor: Decryptor, request: DecryptionRequest) -> None:
    """The decryptor refuses and is as it was."""
    before = memory(decryptor)
    with pytest.raises(RefusedDecryption) as caught:
        decryptor.receive(SERVER, request)
    assert caught.value.sender == SERVER
    assert memory(decryptor) == before


UNACCEPTABLE: dict[str, dict[str, Any]] = {
    "active set unsorted": {"active": (2, 1, 3)},
    "active set with a duplicate": {"active": (1, 2, 2, 3)},
    "active set of three with a duplicate": {"active": (1, 2, 2)},
    "active set too small": {"active": (1, 2)},
    "active set of this decryptor alone": {"active": (2,)},
    "active set empty": {"active": ()},
    "active set without this decryptor": {"active": (1, 3, 4)},
    "active set with a client that holds no share": {"active": (1, 2, 3, 5)},
    "active set with a stranger": {"active": (1, 2, 3, 99)},
    "active set with the server": {"active": (0, 1, 2)},
    "contributors too few": {"contributors": (1, 2)},
    "one contributor": {"contributors": (1,)},
    "no contributors": {"contributors": ()},
    "contributors unsorted": {"contributors": (2, 1, 5)},
    "contributors with a duplicate": {"contributors": (1, 2, 2)},
    "contributors beyond the capacity": {"contributors": (1, 2, 7)},
    "contributors with the server": {"contributors": (0, 1, 2)},
    "attempt zero": {"attempt": 0},
    "one attempt too many": {"attempt": 9},
    "round beyond the session": {"round": 51},
    "confirmation with contributors in a later round's clothes": {"round": 0},
    "another session": {"transcript": bytes(32)},
    "no session": {"transcript": b""},
    "a second draw": {"draw": Draw(number=1)},
    "two groups announced": {"draw": Draw(groups=2)},
    "a salt that nobody committed to": {"draw": Draw(salt=b"salt")},
    "c1 too short": {"c1": b""},
    "c1 a byte too long": {"c1": bytes(4096 * 12 + 1)},
    "c1 with two blocks for one": {"c1": bytes(2 * 4096 * 12)},
    "c1 not canonical": {"c1": b"\xff" * (4096 * 12)},
}


@pytest.mark.parametrize("name", UNACCEPTABLE)
def test_unacceptable_request_is_refused_and_changes_nothing(name: str) -> None:
    simulation, decryptor, request = session()
    assert len(only_group(request).c1) == 4096 * 12
    assert_refused(decryptor, rephrased(request, **UNACCEPTABLE[name]))
    twin = Decryptor(simulation.keys[2], SeededSource("simulation/smudging/2"))
    confirmations = [m for _, r, m in simulation.log if r == 2 and isinstance(m, DecryptionRequest)]
    for message in confirmations:
        answer(twin, message)
    twin.end_confirmation()
    assert answer(decryptor, request) == answer(twin, request)


@pytest.mark.parametrize(
    "changes",
    [
        {"active": (1, 2, 3, 4)},
        {"active": (2, 3, 4)},
        {"contributors": (1, 2, 3, 4, 5, 6)},
        {"contributors": (4, 5, 6)},
        {"attempt": 4},
        {"round": 50},
        {"c1": bytes(4096 * 12)},
    ],
)
def test_request_at_the_edge_of_the_policy_is_answered(changes: dict[str, Any]) -> None:
    simulation, decryptor, request = session()
    assert len(answer(decryptor, rephrased(request, **changes))) == simulation.plan.share_bytes


@pytest.mark.parametrize("count", [0, 2])
def test_a_request_for_any_number_of_groups_but_one_is_refused(count: int) -> None:
    _, decryptor, request = session()
    with pytest.raises(RefusedDecryption, match="draws groups, which nobody agreed to"):
        decryptor.receive(SERVER, replace(request, groups=request.groups * count))
    assert answer(decryptor, request)


def test_only_the_server_may_ask() -> None:
    _, decryptor, request = session()
    before = memory(decryptor)
    with pytest.raises(UnexpectedSender):
        decryptor.receive(1, request)
    assert memory(decryptor) == before


def test_capacity_admits_late_joiners_as_contributors() -> None:
    _, decryptor, request = session(capacity=8)
    assert_refused(decryptor, rephrased(request, contributors=(1, 2, 9)))
    answer(decryptor, rephrased(request, contributors=(1, 2, 8)))


# -- one aggregate a round -------------------------------------------------------------------------


def test_second_aggregate_of_a_round_is_refused() -> None:
    _, decryptor, request = session()
    answer(decryptor, request)
    c1 = only_group(request).c1
    other = bytes([c1[0] ^ 1]) + c1[1:]
    for attempt in (1, 2):
        assert_refused(decryptor, rephrased(request, c1=other, attempt=attempt))
        assert_refused(decryptor, rephrased(request, contributors=(1, 2, 5), attempt=attempt))


def test_older_round_is_refused() -> None:
    _, decryptor, request = session()
    answer(decryptor, replace(request, round=7))
    for round in (6, 1):
        assert_refused(decryptor, replace(request, round=round))
        assert_refused(decryptor, replace(request, round=round, attempt=4))


def confirming(**options: Any) -> tuple[Simulation, Decryptor, DecryptionRequest]:
    """Return a decryptor 2 whose key is not confirmed yet, and the last confirming request."""
    simulation, _, _ = session(**options)
    asked = [m for _, r, m in simulation.log if r == 2 and isinstance(m, DecryptionRequest)]
    decryptor = Decryptor(simulation.keys[2], SeededSource("confirming"))
    for message in asked:
        answer(decryptor, message)
    return simulation, decryptor, asked[-1]


def test_confirmation_is_over_once_the_session_is_open() -> None:
    _, decryptor, last = confirming()
    decryptor.end_confirmation()
    assert_refused(decryptor, replace(last, attempt=last.attempt + 1))


def test_no_round_is_answered_before_the_session_is_open() -> None:
    _, _, request = session()
    _, decryptor, last = confirming()
    assert_refused(decryptor, request)
    answer(decryptor, replace(last, attempt=last.attempt + 1))
    decryptor.end_confirmation()
    answer(decryptor, request)


def test_nobody_chooses_what_confirms_the_key() -> None:
    simulation, decryptor, last = confirming()
    unasked = Decryptor(simulation.keys[2], SeededSource("unasked"))
    _, derived = confirmation.ciphertext(
        simulation.plan, simulation.keys[2].key, simulation.keys[2].transcript
    )
    own = simulation.ring.to_bytes(derived.c1)
    request = replace(last, attempt=last.attempt + 1)
    # Not even the right one is taken from the server.
    for c1 in (bytes(len(own)), own, own[:-1], b"\0"):
        assert_refused(decryptor, rephrased(request, c1=c1))
        assert_refused(unasked, rephrased(request, c1=c1))
    assert only_group(last).c1 == b""
    answer(decryptor, request)
    answer(unasked, request)


def test_what_confirms_the_key_follows_from_the_session() -> None:
    simulation, _, _ = session()
    keys = simulation.keys
    made = [
        confirmation.ciphertext(simulation.plan, keys[i].key, keys[i].transcript) for i in (1, 2)
    ]
    assert np.array_equal(made[0][0], made[1][0])
    assert np.array_equal(made[0][1].c1, made[1][1].c1)
    other = confirmation.ciphertext(simulation.plan, keys[1].key, bytes(32))
    assert not np.array_equal(made[0][0], other[0])
    assert not np.array_equal(made[0][1].c1, other[1].c1)
    # Every bit of a slot but the highest is tried.
    slot_bits = simulation.plan.threshold.slot_bits
    assert made[0][0].min() >= 0 and int(made[0][0].max()).bit_length() == slot_bits - 1


@pytest.mark.parametrize("contributors", [(1,), (1, 2, 3)])
def test_confirmation_has_no_contributors(contributors: tuple[int, ...]) -> None:
    _, decryptor, last = confirming()
    request = replace(last, attempt=last.attempt + 1)
    assert_refused(decryptor, rephrased(request, contributors=contributors))
    answer(decryptor, request)


def test_replayed_or_earlier_attempt_is_refused() -> None:
    _, decryptor, request = session()
    answer(decryptor, replace(request, attempt=2))
    for attempt in (1, 2):
        assert_refused(decryptor, replace(request, attempt=attempt, active=(2, 3, 4)))
    answer(decryptor, replace(request, attempt=3, active=(2, 3, 4)))
    # An exact repeat is cached for the last answer only.
    assert_refused(decryptor, replace(request, attempt=2))


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_no_more_than_max_attempts_are_answered(limit: int) -> None:
    _, decryptor, request = session(max_attempts=limit)
    for attempt in range(1, limit + 1):
        answer(decryptor, replace(request, attempt=attempt))
    assert_refused(decryptor, replace(request, attempt=limit + 1))


def test_confirmation_has_its_own_number_of_attempts() -> None:
    simulation, decryptor, last = confirming(max_attempts=1)
    limit = simulation.parameters.confirmation_attempts
    assert limit > last.attempt
    for attempt in range(last.attempt + 1, limit + 1):
        answer(decryptor, replace(last, attempt=attempt))
    assert_refused(decryptor, replace(last, attempt=limit + 1))


def test_newer_round_is_answered_even_when_rounds_were_missed() -> None:
    _, decryptor, request = session()
    for round in (1, 2, 9):
        answer(decryptor, replace(request, round=round))


# -- repeats ---------------------------------------------------------------------------------------


def test_exact_repeat_gets_identical_bytes_and_draws_nothing() -> None:
    _, decryptor, request = session()
    first = answer(decryptor, request)
    before = memory(decryptor)
    for _ in range(3):
        assert answer(decryptor, request) == first
    assert memory(decryptor) == before


def test_next_attempt_over_the_same_set_has_fresh_smudging_and_masks() -> None:
    simulation, decryptor, request = session()
    first, second = (answer(decryptor, replace(request, attempt=a)) for a in (1, 2))
    blocks = [simulation.read_share(DecryptionShare(1, 1, share))[0] for share in (first, second)]
    # Masks are uniform in R_q, so the answers differ in their highest limb as well.
    assert np.mean(blocks[0][-1] == blocks[1][-1]) < 0.01


# -- budget ----------------------------------------------------------------------------------------


def with_budget(simulation: Simulation, answers: int) -> Decryptor:
    """Return decryptor 2 with a budget of so many ciphertexts, none of it spent."""
    keys = simulation.keys[2]
    plan = replace(keys.plan, budget=answers * simulation.parameters.confirmations)
    assert plan.answers == answers
    opened = Memory(confirming=False)
    return Decryptor(replace(keys, plan=plan), SeededSource("budget"), memory=opened)


def test_spent_budget_is_refused_but_the_last_answer_repeated() -> None:
    simulation, _, request = session()
    decryptor = with_budget(simulation, 3)
    for round in (1, 2, 3):
        last = answer(decryptor, replace(request, round=round))
    assert_refused(decryptor, replace(request, round=4))
    assert_refused(decryptor, replace(request, round=3, attempt=2))
    assert answer(decryptor, replace(request, round=3)) == last


def test_refusals_cost_no_budget() -> None:
    simulation, _, request = session()
    decryptor = with_budget(simulation, 1)
    for _ in range(3):
        assert_refused(decryptor, replace(request, attempt=9))
    answer(decryptor, request)


def test_budget_counts_every_ciphertext_of_an_aggregate() -> None:
    simulation = Simulation(3, 2, 9001, encryption="direct")
    simulation.run_setup()
    blocks = simulation.plan.threshold.blocks
    assert blocks > 1
    made = {i: simulation.contribution(i, 1, u) for i, u in simulation.random_updates().items()}
    decryptor = with_budget(simulation, 2 * blocks - 1)
    answer(decryptor, simulation.request(made))
    assert_refused(decryptor, simulation.request(made, round=2))


def test_budget_of_the_plan_covers_every_round_with_every_attempt() -> None:
    simulation, decryptor, request = session(rounds=3, max_attempts=2)
    for round in (1, 2, 3):
        for attempt in (1, 2):
            answer(decryptor, replace(request, round=round, attempt=attempt))
    assert simulation.plan.answers >= 3 * 2 + simulation.parameters.confirmation_attempts


# -- what the answer depends on --------------------------------------------------------------------


@pytest.mark.parametrize("robust", [True, False])
def test_answers_of_an_active_set_add_up_to_the_secret_times_c1(robust: bool) -> None:
    simulation = Simulation(3, 2 if robust else 3, robust=robust)
    simulation.run_setup()
    updates = simulation.random_updates()
    made = {i: simulation.contribution(i, 1, u) for i, u in updates.items()}
    total = simulation.decrypt(made, simulation.request(made))
    assert total is not None and np.array_equal(total, sum(updates.values()))


def test_server_is_told_the_reason_of_a_refusal() -> None:
    simulation, _, _ = session()
    updates = simulation.random_updates()
    simulation.intercept = altering(
        DecryptionRequest, lambda m: replace(m, active=(1,)), receiver=1
    )
    end = simulation.run_round(updates)
    assert [(r, e.reason) for r, e in simulation.refusals] == [
        (1, "1 decryptors are asked, 3 are needed")
    ]
    # Another set did the work.
    assert end.attempts == 2


# -- verified aggregates ---------------------------------------------------------------------------


def verified() -> tuple[Simulation, DecryptionRequest]:
    """Return a session of 4 clients, t = 3, and what an honest server asks."""
    simulation = Simulation(4, 3, verified=True)
    simulation.run_setup()
    _, request = simulation.collect(simulation.random_updates())
    return simulation, request


def test_evidence_with_any_part_changed_is_refused_and_changes_nothing() -> None:
    simulation, request = verified()
    decryptor, first = simulation.decryptors[2], request.evidence[0]
    pledge = request.pledges[0]
    changes: dict[str, dict[str, Any]] = {
        "c1 of the server": {"c1": bytes(simulation.ring.wire_length(simulation.ring.degree))},
        "another model": {"model": bytes(32)},
        "no model": {"model": b""},
        "another round": {"round": request.round + 1},
        "evidence missing": {"evidence": request.evidence[1:]},
        "evidence twice": {"evidence": (first, *request.evidence)},
        "evidence in another order": {"evidence": request.evidence[::-1]},
        "evidence of a client that is not named": {"contributors": (1, 2, 3)},
        "no evidence": {"evidence": ()},
        "pledges in another order": {"pledges": request.pledges[::-1]},
        "a pledge twice": {"pledges": (pledge, *request.pledges)},
        "a pledge missing": {"pledges": request.pledges[1:]},
        "another pledge": {"pledges": (replace(pledge, digest=bytes(32)), *request.pledges[1:])},
        "a pledge of a stranger": {"pledges": (*request.pledges, replace(pledge, index=99))},
    }
    for name in ("c1", "proof", "signature"):
        data = getattr(first, name)
        other = getattr(request.evidence[1], name)
        for wrong in (data[:-1], data + b"\0", b"", data[:-1] + bytes([data[-1] ^ 1]), other):
            changed: dict[str, Any] = {name: wrong}
            broken = (replace(first, **changed), *request.evidence[1:])
            changes[f"{name} of {len(wrong)} bytes {wrong[-1:].hex()}"] = {"evidence": broken}
    for change in changes.values():
        assert_refused(decryptor, rephrased(request, **change))
    assert answer(decryptor, request)


@pytest.mark.parametrize("index", [1 << 32, (1 << 53) - 1])
def test_a_pledge_of_an_index_that_no_client_can_have_is_refused(index: int) -> None:
    simulation, request = verified()
    pledge = replace(request.pledges[0], index=index)
    assert_refused(simulation.decryptors[2], replace(request, pledges=(*request.pledges, pledge)))


def test_two_lists_of_pledges_with_the_same_bytes_are_not_both_believed() -> None:
    simulation = Simulation(5, 4, verified=True, max_corrupt=1)
    simulation.run_setup()
    _, request = simulation.collect(simulation.random_updates())
    honest = rephrased(request, contributors=(1, 2, 3), evidence=request.evidence[:3])
    # The last pledge hides behind the one before it, so nobody's signature notices.
    *others, fourth, fifth = request.pledges
    hidden = fourth.digest + fifth.index.to_bytes(4, "big") + fifth.digest
    joined = replace(honest, pledges=(*others, replace(fourth, digest=hidden)))
    assert_refused(simulation.decryptors[1], joined)
    assert answer(simulation.decryptors[1], honest)
