"""Whole private runs in one process: the noise in sums, what is recorded, and when they stop."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fl.learning.global_model import GlobalModel
from fl.model.round_model import RoundModel
from fl.privacy.privacy import Privacy
from fl.report.metrics import INTERRUPTED, History, RoundRecord, Summary
from fl.report.progress import Display
from fl.run.background import Background
from fl.run.rounds import Training
from fl.schemes.scheme import codec_for
from fl.state.server import Checkpoint
from fl.state.spending import charged
from mphe.net.loopback import Network
from mphe.update import Mean, PublicRange
from mphe.update.quantise import Spread, dequantise, half_levels
from tests.fl.federation import SIZE, FakeTrainer, privacy_of, run, spoil
from tests.fl.private import data, federation, pretend, private_flags
from tests.patience import flag

ROUNDS = 12


def watch_sums(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float, np.ndarray]]:
    """Return a list that will hold contributors, range and integers of every published sum."""
    seen: list[tuple[int, float, np.ndarray]] = []

    def watched(total: np.ndarray, contributors: int, largest: float, bits: int) -> Any:
        seen.append((contributors, largest, total[:SIZE].copy()))
        return dequantise(total, contributors, largest, bits)

    monkeypatch.setattr("mphe.update.private.dequantise", watched)
    return seen


def noise(
    plan: Privacy, sums: list[tuple[int, float, np.ndarray]], bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise of all sums of zero updates, in units of what one unit can change, (n,)."""
    found = []
    for contributors, largest, total in sums:
        step = largest / half_levels(bits)
        moved = plan.sensitivity / step + SIZE**0.5
        found.append((total - contributors * largest / step) / moved)
    return np.concatenate(found), np.array([contributors for contributors, _, _ in sums])


def test_a_sum_of_the_fewest_contributors_has_the_promised_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that may drop out do so in every second round; one of the three left may collude."""
    pretend(monkeypatch)
    words = ["--num_iterations", str(ROUNDS), "--batch_size_per_worker", "5"]
    args = private_flags(tmp_path, *words, "--resiliency", "0.5", "--min_contributors", "3")
    sums = watch_sums(monkeypatch)

    def drop(network: Network, round: int) -> None:
        if round % 2 == 0:
            network.cut(4)

    outcome = run(args, meddle=drop, reconnect=[4], real=federation(args))
    plan = privacy_of(args, SIZE, data().train_y)
    assert plan is not None and plan.honest == 2
    values, contributors = noise(plan, sums, args.codec.value_bits)
    assert sorted(set(contributors)) == [3, 4] and len(outcome.history.records) == ROUNDS
    few = np.repeat(contributors == 3, SIZE)
    for chosen, expected in ((few, 3), (~few, 4)):
        # All but the colluding one's share of it are unknown: that is z, and no less.
        unknown = np.std(values[chosen]) * np.sqrt((expected - 1) / expected)
        promised = plan.noise_multiplier * np.sqrt((expected - 1) / 2)
        # 300 values: the deviation is right to 4.1 % (one deviation). Noise for all four, or for
        # a colluding one too, would be 18 % too small.
        assert unknown == pytest.approx(promised, rel=0.13)


def test_nothing_of_the_counts_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 0.001)
    args = private_flags(tmp_path, "--batch_size_per_worker", "5")
    outcome = run(args, real=federation(args))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and outcome.client_errors == {}
    for line in lines:
        for name in ("train_loss", "train_accuracy", "samples", "saturated"):
            assert line[name] is None
        # How long training took depends on how many samples there are.
        assert line["seconds_by_stage"]["train"] is line["seconds_by_stage"]["encrypt"] is None
    spent = [line["epsilon"] for line in lines]
    assert 0 < spent[0] < spent[1] < spent[2] <= 4
    assert ("epsilon spent", f"{spent[2]:.4g}") in Summary(outcome.history).rows()


def test_a_round_in_groups_costs_what_one_sum_costs_whatever_is_implausible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups are disjoint, and the noise is sized by the fewest contributors of one."""
    pretend(monkeypatch)
    spoil(monkeypatch, 3)
    words = "--batch_size_per_worker 5 --resiliency 0.5 --min_contributors 2 --max_groups 2"
    args = private_flags(tmp_path, *words.split(), "--dp_colluding", "1")
    outcome = run(args, real=federation(args))
    records, plan = outcome.history.records, privacy_of(args, SIZE, data().train_y)
    assert plan is not None and plan.honest == 2 - 1
    assert records[0].groups == 2 and len(records[0].implausible) == 1
    assert [record.epsilon for record in records] == [plan.budget.spent(n) for n in (1, 2, 3)]


def test_the_range_does_not_narrow_until_unseen_values_leave_it(tmp_path: Path) -> None:
    """Private clients do not tell how many do."""
    args = private_flags(tmp_path, "--dp_unit", "client", "--value_bits", "8", "--clip_norm", "9")
    update = np.eye(1, SIZE, dtype=np.float32)[0]
    codec = codec_for(args.codec, SIZE, privacy_of(args, SIZE, None))
    public, mean = codec.first_public(), Mean(update, 0, None, spread=Spread.of(update, 0, 4))
    for _ in range(20):
        public = codec.next_public(public, mean)
    assert public.clip_range == pytest.approx(4.0)


def test_training_stops_when_the_budget_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    words = "--dp_unit client --dp_noise_multiplier 2.5 --num_iterations 50"
    args = private_flags(tmp_path, *words.split())
    plan = privacy_of(args, SIZE, None)
    assert plan is not None
    outcome = run(args, real=federation(args))
    records = outcome.history.records
    assert len(records) == plan.budget.rounds < 50
    last = records[-1].epsilon
    assert last is not None and last <= 4 < plan.budget.spent(len(records) + 1)
    assert all(record.abandoned is None for record in records)
    assert outcome.client_errors == {}


def record(attempts: int, abandoned: str | None = None) -> RoundRecord:
    return RoundRecord(
        round=1,
        contributors=(),
        dropped=(),
        accuracy=0.0,
        loss=0.0,
        train_loss=None,
        train_accuracy=None,
        samples=None,
        seconds=0.0,
        seconds_by_stage={},
        upload_bytes_per_client=0,
        download_bytes_per_client=0,
        decryption_bytes_per_decryptor=0,
        attempts=attempts,
        saturated=None,
        abandoned=abandoned,
    )


def test_a_round_costs_once_its_sum_may_have_been_seen() -> None:
    assert charged([]) == 0
    assert charged([record(1), record(3)]) == 2
    # Given up before anybody was asked for a share; after that; and lost with the server.
    assert charged([record(0, "too few")]) == 0
    assert charged([record(2, "the shares do not fit")]) == 1
    assert charged([record(0, INTERRUPTED)]) == 1


def test_abandoned_rounds_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)

    def cut(network: Network, round: int) -> None:
        if round == 2:
            network.cut(3)
            network.cut(4)

    args = private_flags(tmp_path, "--dp_unit", "client", "--round_timeout", flag(0.5))
    outcome = run(args, meddle=cut, real=federation(args))
    first, second, third = outcome.history.records
    assert first.abandoned is None and second.abandoned and third.abandoned
    assert first.epsilon == second.epsilon == third.epsilon


def test_a_resumed_server_counts_on_from_its_history(
    tmp_path: Path,
) -> None:
    """Of three rounds two are in the history, and one was lost with the server."""
    args = private_flags(tmp_path, "--dp_unit", "client", "--dp_noise_multiplier", "4")
    plan = privacy_of(args, SIZE, None)
    assert plan is not None
    history = History(tmp_path)
    history.records = [replace(record(1), round=number) for number in (1, 2)]
    driver: Any = None
    aggregator: Any = SimpleNamespace(
        keeps_sum=False, abandon_round=lambda reason: None, resume_at=lambda last: None
    )
    trainer: Any = FakeTrainer()
    display = Display(3, Console(quiet=True))
    background = Background(trainer, data(), tmp_path, lambda: None)
    model = GlobalModel(args.learning, trainer.get_vector(), codec_for(args.codec, SIZE, plan))
    training = Training(
        args.rounds, model, driver, aggregator, trainer, background, history, display, privacy=plan
    )
    training.resume(Checkpoint(2, RoundModel(np.zeros(SIZE, np.float32), PublicRange(1.0))), 3)
    assert [entry.abandoned for entry in history.records] == [None, None, INTERRUPTED]
    assert history.records[-1].epsilon == plan.budget.spent(3)
    plan.budget.rounds = 4
    assert not training._budget_is_spent(4)
    plan.budget.rounds = 3
    assert training._budget_is_spent(4)
    assert training.ending.startswith("the privacy budget is spent after round 3")
