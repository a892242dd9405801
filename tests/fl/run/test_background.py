"""What the server does beside the rounds: no round waits for it, and what it leaves is whole."""

import asyncio
import dataclasses
import json
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.config.configs import Config
from fl.data.load import Dataset
from fl.report.metrics import Summary
from fl.run.background import PART, Background
from mphe.net.loopback import Network
from tests.fl.federation import SIZE, FakeTrainer, Real, flags, run
from tests.patience import scaled, wait_until

PARTS = 8


def weights_of(round: int) -> np.ndarray:
    return np.full(SIZE, round, np.float32)


def data() -> Dataset:
    x, y = np.zeros((PARTS * PART, 1), np.float32), np.zeros(PARTS * PART, np.int64)
    return Dataset("fake", x, y, x, y)


def kept(directory: Path) -> tuple[int, float]:
    """Return the round of the model on disk, and what its weights say."""
    path = directory / "model.keras"
    with zipfile.ZipFile(path) as archive:
        round = json.loads(archive.read("training.json"))["round"]
    return round, float(np.frombuffer(path.read_bytes()[: 4 * SIZE], np.float32)[0])


class SlowTrainer(FakeTrainer):
    """Evaluates a part, or saves, only when it may; the accuracy is the weight, in hundredths."""

    def __init__(self) -> None:
        super().__init__()
        self.may_evaluate, self.may_save = threading.Semaphore(0), threading.Semaphore(99)
        self.saves: list[float] = []
        self.threads: set[str] = set()

    def evaluate(self, _x: Any, _y: Any) -> tuple[float, float]:
        before = float(self._weights[0])
        assert self.may_evaluate.acquire(timeout=scaled(60))
        assert before == float(self._weights[0])  # nobody wrote into the model meanwhile
        self.threads.add(threading.current_thread().name)
        return before / 100, 1.0

    def save(self, path: Path) -> None:
        assert self.may_save.acquire(timeout=scaled(60))
        self.threads.add(threading.current_thread().name)
        self.saves.append(float(self._weights[0]))
        super().save(path)


def evaluating(config: Config, every: int | None) -> Config:
    """Return the same run with its model evaluated every so many rounds; None: beside them."""
    rounds = dataclasses.replace(config.rounds, evaluate_every=every)
    return dataclasses.replace(config, rounds=rounds)


def test_a_model_is_kept_while_another_is_evaluated(tmp_path: Path) -> None:
    """What is evaluated is the model of its round, though later ones are written in between."""
    trainer = SlowTrainer()

    async def play() -> None:
        background = Background(trainer, data(), tmp_path, lambda: None)
        task = asyncio.create_task(background.evaluate(1, weights_of(1)))
        await asyncio.sleep(0)
        background.keep(2, weights_of(2))
        trainer.may_evaluate.release()  # one part of eight
        await asyncio.to_thread(wait_until, lambda: (tmp_path / "model.keras").exists())
        assert kept(tmp_path) == (2, 2.0) and not task.done()
        for _ in range(PARTS):
            trainer.may_evaluate.release()
        found = await task
        assert (found.round, found.loss) == (1, 1.0)
        assert found.accuracy == pytest.approx(0.01)
        background.close(2, weights_of(2))

    asyncio.run(play())
    assert len(trainer.threads) == 1


def test_of_the_models_that_wait_the_last_is_kept(tmp_path: Path) -> None:
    trainer = SlowTrainer()
    trainer.may_save = threading.Semaphore(0)
    background = Background(trainer, data(), tmp_path, lambda: None)
    models = [weights_of(round) for round in range(7)]
    background.keep(1, models[1])
    wait_until(lambda: (tmp_path / ".unfinished").exists())  # it is being saved
    for round in range(2, 7):
        background.keep(round, models[round])
    for _ in range(9):
        trainer.may_save.release()
    background.close(6, models[6])
    assert trainer.saves == [1.0, 6.0] and kept(tmp_path) == (6, 6.0)


def test_a_model_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    trainer = FakeTrainer()
    background = Background(trainer, data(), tmp_path, lambda: None)
    background.keep(1, weights_of(1))
    wait_until(lambda: (tmp_path / "model.keras").exists())

    def tear(path: Path) -> None:
        path.write_bytes(b"half a mo")
        raise OSError(28, "No space left on device")

    trainer.save = tear  # type: ignore[method-assign]
    background.keep(2, weights_of(2))
    wait_until(lambda: all(job.done() for job in background._jobs))
    with pytest.raises(OSError, match="No space"):
        background.keep(3, weights_of(3))
    with pytest.raises(OSError, match="No space"):
        background.close(3, weights_of(3))
    assert kept(tmp_path) == (1, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_what_a_killed_process_left_half_written_goes(tmp_path: Path) -> None:
    (tmp_path / ".unfinished").mkdir()
    (tmp_path / ".unfinished" / "model.keras").write_bytes(b"half")
    Background(FakeTrainer(), data(), tmp_path, lambda: None)
    assert list(tmp_path.iterdir()) == []


def test_the_rounds_are_drawn_from_the_first_on_but_not_all_the_time(tmp_path: Path) -> None:
    drawn: list[int] = []
    background = Background(FakeTrainer(), data(), tmp_path, lambda: drawn.append(1))
    for round in range(1, 6):
        background.keep(round, weights_of(round))
        wait_until(lambda: all(job.done() for job in background._jobs))
    background.close(5, weights_of(5))
    assert drawn == [1]


def test_rounds_do_not_wait_for_an_evaluation(tmp_path: Path) -> None:
    """One evaluation lasts until round 4: rounds 1 to 4 end without one, and 2 to 4 have none."""
    trainer = SlowTrainer()

    def let_go(_: Network, round: int) -> None:
        if round == 5:
            trainer.may_evaluate.release(99)

    args = evaluating(flags(tmp_path, "--num_iterations", "6"), None)
    outcome = run(args, meddle=let_go, real=Real(trainer=trainer))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rounds = [line for line in lines if "contributors" in line]
    late = [line for line in lines if "contributors" not in line]
    assert [line["round"] for line in rounds] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in rounds] == [None] * 5 + [1.0]
    assert late[0].keys() == {"round", "accuracy", "loss"} and late[0]["round"] == 1
    assert lines.index(late[0]) >= 4
    assert not {2, 3, 4} & {line["round"] for line in late}
    joined = {record.round: record.accuracy for record in outcome.history.records}
    assert joined[1] == late[0]["accuracy"] and joined[2] is None
    assert dict(Summary(outcome.history).rows())["accuracy"].endswith("(loss 1.0000)")


@pytest.mark.parametrize(("every", "evaluated"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_given_rounds_are_evaluated_before_they_end(
    tmp_path: Path, every: int, evaluated: list[int]
) -> None:
    more = ["--num_iterations", "5", "--evaluate_every", str(every), "--aggregation", "plain"]
    run(flags(tmp_path, *more))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["round"] for line in lines if line["loss"] is not None] == evaluated


@pytest.mark.parametrize("every", [0, 4])
def test_the_last_model_is_evaluated_though_later_rounds_were_abandoned(
    tmp_path: Path, every: int
) -> None:
    def cut(network: Network, round: int) -> None:
        if round == 3:
            network.cut(1)

    args = flags(tmp_path, "--num_iterations", "4", "--round_timeout", "0.5")
    outcome = run(evaluating(args, every or None), meddle=cut)
    records = outcome.history.records
    assert [record.abandoned is None for record in records] == [True, True, False, False]
    assert [record.loss for record in records[1:]] == [1.0, None, None]
    assert kept(tmp_path)[0] in (2, 3, 4)
