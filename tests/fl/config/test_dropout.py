"""`--simulate_dropout`: the rounds are without those that drop out, who are back for the next."""

from itertools import pairwise
from pathlib import Path

import pytest

from fl.config.dropout import Dropout, dropped_count
from fl.report.metrics import Summary
from mphe.roles.rounds.decryptor import Decryptor
from tests.end_to_end.launcher import command, metrics
from tests.end_to_end.launcher import run as launch
from tests.fl.federation import expected_weights, flags, run
from tests.patience import flag
from tests.ports import free_port

EVERYBODY = (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("part", "clients", "count"), [(0.0, 4, 0), (0.5, 5, 2), (0.29, 100, 29), (0.3, 10, 3)]
)
def test_the_part_is_rounded_down_as_it_was_typed(part: float, clients: int, count: int) -> None:
    assert dropped_count(part, clients) == count
    sets = [Dropout(part, clients, 0).of(round) for round in range(1, 200)]
    assert {len(gone) for gone in sets} == {count}
    if count:
        assert set().union(*sets) == set(range(1, clients + 1))
        assert sets != [Dropout(part, clients, 1).of(round) for round in range(1, 200)]
        assert sum(before != after for before, after in pairwise(sets)) > 100


@pytest.mark.parametrize(
    "words",
    [
        "--resiliency 0.5 --min_contributors 2 --simulate_dropout 0.5",
        "--resiliency 0.5 --min_contributors 2 --simulate_dropout 0.5 --aggregation plain",
        "--resiliency 0.75 --simulate_dropout 0.25 --verify_aggregate True",
    ],
    ids=["hybrid", "plain", "verified"],
)
def test_rounds_are_without_those_that_drop_out(
    tmp_path: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    answer = Decryptor.receive

    def listen(self: Decryptor, sender: int, message: object) -> object:
        asked.append((getattr(message, "round", 0), self._keys.index))
        return answer(self, sender, message)  # type: ignore[arg-type]

    monkeypatch.setattr(Decryptor, "receive", listen)
    args = flags(tmp_path, *words.split(), "--num_iterations", "8", "--round_timeout", "600")
    outcome = run(args, reconnect=EVERYBODY, away_seconds=0.05)
    gone = [tuple(sorted(args.rounds.dropout.of(round))) for round in range(1, 9)]
    records = outcome.history.records
    assert [record.dropped for record in records] == gone
    assert len(set(gone)) > 2
    stayed = [tuple(set(EVERYBODY) - set(dropped)) for dropped in gone]
    assert [record.contributors for record in records] == stayed
    # Nobody is blamed, and no attempt at decryption is lost on somebody who is away.
    assert {record.attempts for record in records} <= {0, 1}
    assert {record.abandoned for record in records} == {None}
    assert list(outcome.driver.departures) == [] and outcome.client_errors == {}
    assert ("clients lost", "none") in Summary(outcome.history).rows()
    assert outcome.weights == pytest.approx(expected_weights(args, stayed), abs=1e-4)
    assert all(index not in gone[round - 1] for round, index in asked if round)
    assert args.codec.aggregation == "plain" or {round for round, _ in asked} >= set(range(1, 9))


def test_whoever_stays_away_after_a_round_is_named(tmp_path: Path) -> None:
    words = f"--resiliency 0.5 --simulate_dropout 0.25 --round_timeout {flag(0.5)}"
    args = flags(tmp_path, *words.split())
    (away,) = args.rounds.dropout.of(1)
    outcome = run(args, reconnect=[index for index in EVERYBODY if index != away])
    departures = [(lost.client, lost.reason) for lost in outcome.driver.departures]
    assert departures == [(away, "left the round and did not come back")]
    assert {away} <= set(outcome.history.records[1].dropped)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_half_of_the_clients_drop_out_of_every_round_of_a_real_run(tmp_path: Path) -> None:
    words = "--resiliency 0.5 --min_contributors 2 --simulate_dropout 0.5 --num_iterations 8"
    more = words.split()
    code, text = launch(command(4, free_port(), tmp_path, *more))
    assert code == 0, text
    records = metrics(tmp_path)
    assert [len(record["dropped"]) for record in records] == 8 * [2]
    gone = [set(record["dropped"]) for record in records]
    assert gone == [Dropout(0.5, 4, 0).of(round) for round in range(1, 9)]
    assert len(set(map(frozenset, gone))) > 2
    assert {record["attempts"] for record in records} == {1}
    assert not any(word in text for word in ("is gone", "left out", "no answer", "come back"))
