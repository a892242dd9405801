"""Naming by evidence against every set of parties tried one by one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mphe.errors import EncodingError
from mphe.roles.rounds import culprits
from mphe.roles.rounds.culprits import Suspicions, SuspicionsRecord
from mphe.wire import codec

PARTIES = range(1, 8)
pieces = st.lists(st.frozensets(st.sampled_from(PARTIES), min_size=1, max_size=4), max_size=9)
mosts = st.integers(0, 3)


def told(most: int, evidence: Sequence[frozenset[int]]) -> Suspicions:
    """Return what there is after this evidence."""
    suspicions = Suspicions(most)
    for piece in evidence:
        suspicions.add(piece)
    return suspicions


def explanations(most: int, evidence: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """Return every set of at most `most` parties that meets all evidence."""
    return [
        frozenset(some)
        for size in range(most + 1)
        for some in combinations(PARTIES, size)
        if all(piece.intersection(some) for piece in evidence)
    ]


@given(mosts, pieces)
def test_the_named_are_those_in_every_explanation(
    most: int, evidence: list[frozenset[int]]
) -> None:
    every = explanations(most, evidence)
    suspicions = told(most, evidence)
    assert suspicions.overdrawn == (not every)
    assert suspicions.named() == (frozenset.intersection(*every) if every else frozenset())


def test_the_best_explanation_of_one_piece_may_be_none_of_all() -> None:
    """Dense evidence, where the party that explains most is often not in the explanation."""
    random = np.random.default_rng(2)
    solved = 0
    for _ in range(300):
        guilty = random.choice(PARTIES, 3, replace=False)
        evidence = [
            frozenset({int(random.choice(guilty)), *random.choice(PARTIES, 2).tolist()})
            for _ in range(7)
        ]
        every = explanations(3, evidence)
        suspicions = told(3, evidence)
        assert not suspicions.overdrawn
        assert suspicions.named() == frozenset.intersection(*every)
        solved += len(every) == 1
    assert solved > 30


@given(pieces, st.data())
def test_nobody_honest_is_named_while_no_more_cheat_than_was_assumed(
    evidence: list[frozenset[int]], data: st.DataObject
) -> None:
    guilty = data.draw(st.frozensets(st.sampled_from(PARTIES), min_size=1, max_size=3))
    most = data.draw(st.integers(len(guilty), 3))
    suspicions = Suspicions(most)
    for piece in evidence:
        suspicions.add(piece | {data.draw(st.sampled_from(sorted(guilty)))})
        assert suspicions.named() <= guilty
    assert not suspicions.overdrawn


@given(mosts, pieces)
def test_what_is_resumed_goes_on_as_if_nothing_had_been(
    most: int, evidence: list[frozenset[int]]
) -> None:
    half = len(evidence) // 2
    data = codec.pack(told(most, evidence[:half]).record())
    resumed = Suspicions(most)
    resumed.resume(codec.unpack(data, SuspicionsRecord))
    assert codec.pack(resumed.record()) == data
    for piece in evidence[half:]:
        resumed.add(piece)
    at_once = told(most, evidence)
    assert (resumed.named(), resumed.overdrawn) == (at_once.named(), at_once.overdrawn)
    assert resumed.record() == at_once.record()


def test_four_clients_sit_out_in_turn_until_the_culprit_is_certain() -> None:
    evidence = [{1, 2, 3, 4}, {2, 3, 4}, {1, 3, 4}, {1, 2, 4}]
    for order in permutations(evidence):
        suspicions = Suspicions(1)
        for piece in order[:-1]:
            suspicions.add(piece)
        suspicions.add(order[-1])
        assert suspicions.named() == {4}


def test_evidence_that_says_nothing_new_is_not_kept() -> None:
    suspicions = told(2, [frozenset({1, 2}), frozenset({3, 4})])
    before = suspicions.record()
    suspicions.add({1, 2, 9})  # Met by whatever meets {1, 2}.
    suspicions.add({3, 4})
    assert suspicions.record() == before
    suspicions.add({3})  # Says more than {3, 4}, which goes.
    assert suspicions.record().evidence == ((1, 2), (3,))


def test_more_evidence_than_was_assumed_names_nobody_any_more() -> None:
    suspicions = told(1, [frozenset({4})])
    assert suspicions.named() == {4}
    suspicions.add({1, 2})
    assert suspicions.overdrawn
    assert suspicions.named() == frozenset()
    suspicions.add({4})
    assert suspicions.overdrawn


def test_what_is_against_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one suspect"):
        Suspicions(1).add(())
    with pytest.raises(ValueError, match="at most -1 culprits"):
        Suspicions(-1)
    for evidence in [((),), ((2, 1),), ((1, 1),)]:
        with pytest.raises(EncodingError):
            Suspicions(1).resume(SuspicionsRecord(evidence))


def test_indices_of_numpy_are_taken_too() -> None:
    suspicions = Suspicions(1)
    suspicions.add(np.array([3, 4]))
    suspicions.add(np.array([4, 5]))
    assert suspicions.named() == {4}
    codec.pack(suspicions.record())


def test_a_question_that_is_too_hard_names_nobody_and_accuses_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evidence = [frozenset(pair) for pair in combinations(range(1, 5), 2)]  # No two explain it.
    assert told(2, evidence).overdrawn
    monkeypatch.setattr(culprits, "STEPS", 3)
    hard = told(2, evidence)
    assert (hard.named(), hard.overdrawn) == (frozenset(), False)
    assert len(hard.record().evidence) == len(evidence)  # Kept for an easier day.


def test_many_parties_and_much_evidence_take_a_bounded_number_of_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten thousand contributors in eight groups, one group of each draw implausible."""
    questions: list[int] = []
    spend = culprits._Search._spend

    def counted(self: culprits._Search, steps: int) -> None:
        questions.append(steps)
        spend(self, steps)

    monkeypatch.setattr(culprits._Search, "_spend", counted)
    random = np.random.default_rng(1)
    suspicions = Suspicions(3)
    for _ in range(16):
        group = set(random.permutation(10_000)[:1250].tolist()) | {77}
        suspicions.add(group | set(random.permutation(32)[:16].tolist()))
    assert suspicions.named() <= {77}
    assert not suspicions.overdrawn
    assert sum(questions) < 40 * culprits.STEPS
