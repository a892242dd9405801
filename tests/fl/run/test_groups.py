"""Training in groups: what a hostile client spoils, who is told of it, and what goes on."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.report.metrics import RoundRecord, Summary
from fl.report.progress import Display
from mphe import ProtocolError, Server
from mphe.run import Gathering
from mphe.update import Counts
from tests.fl.federation import SIZE, FakeLearner, Outcome, Real, flags, run, spoil
from tests.fl.state import test_resume

WORDS = [
    *("--resiliency", "0.25", "--min_contributors", "2", "--max_groups", "4"),
    # Stand-ins do not clip: nobody honest is longer than that.
    *("--num_iterations", "8", "--clip_norm", "20"),
]
CULPRIT = 3


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hear the warnings."""
    lines: list[str] = []
    monkeypatch.setattr(Display, "warn", lambda self, line: lines.append(line))
    return lines


def found_out(outcome: Outcome) -> RoundRecord:
    """Return the record of the round in which the culprit was excluded."""
    (record,) = (record for record in outcome.history.records if record.excluded)
    assert [found.client for found in record.excluded] == [CULPRIT]
    return record


def test_a_culprit_costs_its_group_is_named_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    spoil(monkeypatch, CULPRIT)
    outcome = run(flags(tmp_path, *WORDS, peers=8))
    named = found_out(outcome)
    for record in outcome.history.records:
        assert record.abandoned is None
        if record.round > named.round:
            assert (record.implausible, record.groups) == ((), 3)
            assert record.contributors == (1, 2, 4, 5, 6, 7, 8) and record.dropped == ()
            continue
        (lost,) = record.implausible
        assert CULPRIT in lost.contributors and "out of range" in lost.reason
        assert record.dropped == lost.contributors
        assert record.groups == 4
    assert len([line for line in said if "client 3 is excluded: it cheated" in line]) == 1
    assert len([line for line in said if "is implausible: the sum is out" in line]) == named.round
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [len(line["implausible"]) for line in lines].count(1) == named.round
    rows = dict(Summary(outcome.history).rows())
    assert rows["clients excluded"].startswith(f"client 3 in round {named.round}: it cheated")


class Tolerant(test_resume.World):
    """Clients that outlive their server, one of whom is told that it takes no further part."""

    async def client(self, index: int) -> None:
        with suppress(*([ProtocolError] if index == CULPRIT else [])):
            await super().client(index)


def test_who_was_excluded_stays_so_when_the_server_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, CULPRIT)
    monkeypatch.setattr(test_resume, "World", Tolerant)

    def gather(server: Server, _everybody: object) -> Gathering:
        """Wait as the program does, for nobody who is out."""
        return Gathering(server, server.members)

    monkeypatch.setattr(test_resume, "Gathering", gather)
    args = flags(tmp_path, *WORDS, "--num_iterations", "10", peers=8)
    history, _ = asyncio.run(test_resume.live_through(args, tmp_path, ("before start", 8)))
    (named,) = (record for record in history.records if record.excluded)
    assert named.round < 8
    for record in history.records[named.round :]:
        assert (record.implausible, record.dropped) == ((), ())
        assert CULPRIT not in record.contributors


class Hostile(FakeLearner):
    """Sends -20 times its update, and says so of nobody."""

    def encode(self, round: int, model: Any, update: np.ndarray, counts: Counts) -> np.ndarray:
        return super().encode(round, model, np.float32(-20) * update, counts)


def weights(directory: Path, aggregator: str, hostile: bool) -> np.ndarray:
    """Return the weights after a run in four groups of two."""
    words = [*WORDS, "--aggregator", aggregator, "--num_iterations", "3"]
    args = flags(directory, *words, peers=8)

    def never(index: int, round: int) -> None:
        """Let nothing happen to a client."""

    learners = {index: FakeLearner(args, index, never) for index in range(1, 9)}
    if hostile:
        learners[CULPRIT] = Hostile(args, CULPRIT, never)
    directory.mkdir(exist_ok=True)
    outcome = run(args, real=Real(learners=learners))
    assert all(record.abandoned is None for record in outcome.history.records)
    return outcome.weights


@pytest.mark.parametrize("aggregator", ["mean", "median", "norm_filter"])
def test_one_hostile_client_moves_the_mean_and_hardly_the_others(
    tmp_path: Path, aggregator: str
) -> None:
    """Client i finds i/10 in all coordinates, so the mean of all is 0.45."""
    honest = weights(tmp_path / "honest", aggregator, hostile=False)
    attacked = weights(tmp_path / "attacked", aggregator, hostile=True)
    moved = float(np.abs(attacked - honest).max() / np.abs(honest).max())
    assert (moved > 1) == (aggregator == "mean")
    assert (moved < 0.5) == (aggregator != "mean")
    assert honest.shape == (SIZE,)


def test_groups_go_with_compression_rotation_weights_and_direct_encryption(tmp_path: Path) -> None:
    for place, more in enumerate(
        (
            "--compression_rate 0.5 --aggregator median",
            "--rotation True --aggregator trimmed_mean:0.25 --value_bits 8",
            "--weighting samples --aggregator norm_filter",
            "--encryption direct --aggregator median",
        )
    ):
        directory = tmp_path / str(place)
        directory.mkdir()
        words = [*WORDS, "--num_iterations", "2", *more.split()]
        outcome = run(flags(directory, *words, peers=8))
        assert [len(record.contributors) for record in outcome.history.records] == [8, 8]
        assert (outcome.weights < 0).any()
