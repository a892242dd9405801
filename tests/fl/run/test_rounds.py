"""The loops of server and clients, end to end but in one process and without TensorFlow."""

import json
import threading
from math import nan
from pathlib import Path

import numpy as np
import pytest

from fl.report.metrics import STAGES, Summary
from fl.report.progress import Display
from fl.run.rounds import TooManyFailures
from mphe import Excluded, Server, Step
from mphe.net.loopback import Network
from tests.fl.federation import (
    FakeTrainer,
    Real,
    expected_weights,
    flags,
    run,
    server_gone,
)
from tests.patience import flag


@pytest.mark.parametrize(
    "more",
    [
        ["--aggregation", "plain"],
        ["--encryption", "hybrid"],
        ["--encryption", "direct"],
        ["--robust", "False"],
        ["--resiliency", "0.5", "--decryptors", "3"],
        ["--value_bits", "24"],
    ],
)
def test_the_model_steps_by_the_mean_of_all_updates(tmp_path: Path, more: list[str]) -> None:
    args = flags(tmp_path, *more)
    outcome = run(args)
    everybody = 3 * [(1, 2, 3, 4)]
    assert [record.contributors for record in outcome.history.records] == everybody
    assert np.allclose(outcome.weights, expected_weights(args, everybody), atol=2e-5)
    assert outcome.client_errors == {}


def test_metrics_have_the_promised_fields(tmp_path: Path) -> None:
    run(flags(tmp_path, "--resiliency", "0.5"))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert line["contributors"] == [1, 2, 3, 4]
        assert line["dropped"] == []
        assert set(line["seconds_by_stage"]) == set(STAGES)
        # The stages are parts of the round, though in one process they run beside each other.
        assert all(0 <= value <= line["seconds"] for value in line["seconds_by_stage"].values())
        assert line["seconds_by_stage"]["encrypt"] > 0 < line["seconds_by_stage"]["decrypt"]
        assert line["train_loss"] == pytest.approx(2.5, abs=2e-3)
        assert line["upload_bytes_per_client"] > line["decryption_bytes_per_decryptor"] > 0
        assert line["download_bytes_per_client"] > 4 * 50
        assert line["attempts"] == 1
        assert line["saturated"] == 0
        assert line["abandoned"] is None


def test_a_model_without_classes_has_no_accuracy_in_the_metrics(tmp_path: Path) -> None:
    trainer = FakeTrainer()
    trainer.has_classes = False
    trainer.evaluate = lambda _x, _y: (nan, 1.0)  # type: ignore[method-assign]
    real = Real(trainer=trainer)
    outcome = run(flags(tmp_path, "--aggregation", "plain"), real=real)
    for text in (tmp_path / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text, parse_constant=pytest.fail)
        assert line["accuracy"] is line["train_accuracy"] is None
        assert line["loss"] == 1.0 and line["train_loss"] == pytest.approx(2.5)
    rows = dict(Summary(outcome.history).rows())
    assert rows["loss"] == "1.0000" and "accuracy" not in rows


def test_a_client_that_dies_is_left_out_and_named(tmp_path: Path) -> None:
    def die(index: int, round: int) -> None:
        if (index, round) == (2, 2):
            raise MemoryError("killed for the test")

    args = flags(tmp_path, "--resiliency", "0.5", "--round_timeout", flag(2))
    outcome = run(args, before=die)
    counted = [(1, 2, 3, 4), (1, 3, 4), (1, 3, 4)]
    assert [record.contributors for record in outcome.history.records] == counted
    assert np.allclose(outcome.weights, expected_weights(args, counted), atol=2e-5)
    assert any(gone.client == 2 for gone in outcome.driver.departures)
    assert (
        "client 2 in round 2"
        in dict(Summary(outcome.history, outcome.driver.departures).rows())["clients lost"]
    )


def test_a_client_that_hangs_misses_one_round_and_comes_back(tmp_path: Path) -> None:
    resume = threading.Event()

    def hang(index: int, round: int) -> None:
        if (index, round) == (3, 1):
            resume.wait()

    def let_go(_: Network, round: int) -> None:
        if round == 2:
            resume.set()

    args = flags(tmp_path, "--resiliency", "0.5", "--round_timeout", flag(1))
    outcome = run(args, before=hang, meddle=let_go)
    counted = [record.contributors for record in outcome.history.records]
    # After a miss it is not awaited in round 2, but may be in time; in round 3 it is awaited.
    assert counted[0] == (1, 2, 4)
    assert set(counted[1]) >= {1, 2, 4}
    assert counted[2] == (1, 2, 3, 4)
    assert np.allclose(outcome.weights, expected_weights(args, counted), atol=2e-5)


def test_a_client_that_lost_its_connection_comes_back_with_its_keys(tmp_path: Path) -> None:
    def cut(network: Network, round: int) -> None:
        if round in (2, 4):
            network.cut(1 if round == 2 else 4)

    args = flags(tmp_path, "--num_iterations", "5", "--resiliency", "0.75")
    outcome = run(args, meddle=cut, reconnect=[1])
    counted = [record.contributors for record in outcome.history.records]
    everybody = (1, 2, 3, 4)
    # From round 4 on three are left and three must decrypt: client 1 still holds its share.
    assert counted == [everybody, (2, 3, 4), everybody, (1, 2, 3), (1, 2, 3)]
    assert np.allclose(outcome.weights, expected_weights(args, counted), atol=2e-5)
    assert server_gone(outcome) == {4}


def test_rounds_below_the_threshold_are_abandoned_and_change_nothing(tmp_path: Path) -> None:
    def cut(network: Network, round: int) -> None:
        if round == 2:
            network.cut(1)
            network.cut(2)

    args = flags(tmp_path, "--resiliency", "0.75", "--round_timeout", flag(0.5))
    outcome = run(args, meddle=cut)
    records = outcome.history.records
    assert [record.contributors for record in records] == [(1, 2, 3, 4), (), ()]
    assert all(record.abandoned for record in records[1:])
    assert records[0].loss == 1.0
    assert records[1].accuracy is records[1].loss is records[2].loss is None
    assert np.allclose(outcome.weights, expected_weights(args, [(1, 2, 3, 4)]), atol=2e-5)
    assert server_gone(outcome) == {1, 2}


def test_training_gives_up_after_max_failed_rounds(tmp_path: Path) -> None:
    def cut(network: Network, round: int) -> None:
        if round == 1:
            network.cut(1)

    more = ["--max_failed_rounds", "2", "--num_iterations", "9", "--round_timeout", flag(0.5)]
    args = flags(tmp_path, *more)
    with pytest.raises(TooManyFailures, match="2 rounds in a row"):
        run(args, meddle=cut)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_client_that_is_excluded_is_named_once_and_missed_by_no_round_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server finds client 3 out in round 2, whatever made it certain."""
    receive = Server.receive

    def found_out(self: Server, sender: int, data: bytes) -> Step:
        step = receive(self, sender, data)
        if self.round < 2 or 3 not in self.members or self.aggregator is None:
            return step
        self.aggregator.members.discard(3)
        rest = self.lost(3)
        return Step(
            [*step.mail, *rest.mail], [*step.events, Excluded(3, "it cheated"), *rest.events]
        )

    said: list[str] = []
    monkeypatch.setattr(Server, "receive", found_out)
    monkeypatch.setattr(Display, "warn", lambda self, line: said.append(line))
    args = flags(
        tmp_path, "--num_iterations", "4", "--resiliency", "0.5", "--max_failed_rounds", "1"
    )
    outcome = run(args)
    records = outcome.history.records
    assert [record.excluded for record in records] == [(), (Excluded(3, "it cheated"),), (), ()]
    assert records[0].dropped == ()
    assert [record.dropped for record in records[2:]] == [(), ()]
    assert [record.contributors for record in records[2:]] == [(1, 2, 4), (1, 2, 4)]
    assert [line for line in said if "excluded" in line] == ["client 3 is excluded: it cheated"]
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[1])
    assert line["excluded"] == [{"client": 3, "reason": "it cheated"}]
    assert dict(Summary(outcome.history).rows())["clients excluded"].startswith(
        "client 3 in round 2"
    )


def test_updates_that_are_rounded_to_nothing_are_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Display, "warn", lambda self, line: said.append(line))
    run(flags(tmp_path, "--clip_norm", "1e30"))
    assert [line for line in said if "the sum is 0" in line] == [
        "the sum is 0, so nothing is learnt: values are rounded to a grid that --clip_norm 1e+30 "
        "makes too coarse; lower it, or check the data"
    ]
