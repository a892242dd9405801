"""The documented command, from mpirun to a trained model."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.end_to_end.launcher import (
    command,
    metrics,
    ranks,
    run,
    started,
    wait_for_round,
)
from tests.patience import flag, output_of
from tests.ports import free_port

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(
    "more",
    [
        ["--encryption", "hybrid", "--crypto_threads", "2"],
        pytest.param(["--encryption", "direct"], marks=pytest.mark.slow),
        pytest.param(["--robust", "False"], marks=pytest.mark.slow),
    ],
    ids=["hybrid", "direct", "all needed"],
)
def test_three_clients_train(tmp_path: Path, more: list[str]) -> None:
    line = command(3, free_port(), tmp_path, "--num_iterations", "4", *more)
    # The last word wins, so --robust False replaces the True of the line.
    code, text = run(line)
    assert code == 0, text
    records = metrics(tmp_path)
    assert [record["round"] for record in records] == [1, 2, 3, 4]
    assert all(record["contributors"] == [1, 2, 3] for record in records)
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["flags"]["num_iterations"] == 4
    assert config["versions"]["numpy"]
    assert (tmp_path / "model.keras").stat().st_size > 4 * 199_658
    assert "4 completed, 0 abandoned" in text


@pytest.mark.slow
def test_encrypted_training_follows_plain_training(tmp_path: Path) -> None:
    losses = {}
    for aggregation in ("mphe", "plain"):
        output = tmp_path / aggregation
        flags = ["--num_iterations", "6", "--aggregation", aggregation]
        line = command(3, free_port(), output, *flags)
        code, text = run(line)
        assert code == 0, text
        losses[aggregation] = [record["loss"] for record in metrics(output)]
    # Same seed, same batches: only the quantisation differs.
    assert losses["mphe"] == pytest.approx(losses["plain"], rel=0.02)


@pytest.mark.slow
def test_hybrid_sends_fewer_bytes_than_float32(tmp_path: Path) -> None:
    code, text = run(command(3, free_port(), tmp_path, "--num_iterations", "2"))
    assert code == 0, text
    for record in metrics(tmp_path):
        assert record["upload_bytes_per_client"] <= 3.1 * 199_658


@pytest.mark.slow
def test_training_goes_on_when_a_client_is_killed(tmp_path: Path) -> None:
    port = free_port()
    line = command(4, port, tmp_path, "--num_iterations", "8", "--resiliency", "0.5")
    with started(line) as process:
        wait_for_round(process, tmp_path, 2)
        os.kill(ranks(port)[3], signal.SIGKILL)
        text = output_of(process)
        assert process.returncode == 0, text
    records = metrics(tmp_path)
    assert [record["round"] for record in records] == list(range(1, 9))
    assert records[0]["contributors"] == [1, 2, 3, 4]
    assert records[-1]["contributors"] == [1, 2, 4]
    assert records[-1]["dropped"] == [3]
    assert all(record["abandoned"] is None for record in records)
    assert "client 3 in round" in text
    assert "8 completed, 0 abandoned" in text


@pytest.mark.slow
def test_a_hung_client_is_left_out_at_the_deadline(tmp_path: Path) -> None:
    port = free_port()
    more = ["--num_iterations", "4", "--resiliency", "0.6", "--round_timeout", flag(6)]
    with started(command(3, port, tmp_path, *more)) as process:
        wait_for_round(process, tmp_path, 1)
        os.kill(ranks(port)[2], signal.SIGSTOP)
        text = output_of(process)
        assert process.returncode == 0, text
    records = metrics(tmp_path)
    assert [record["round"] for record in records] == [1, 2, 3, 4]
    assert records[-1]["contributors"] == [1, 3]
    assert all(record["abandoned"] is None for record in records)


@pytest.mark.slow
def test_clients_leave_when_the_server_is_killed(tmp_path: Path) -> None:
    port = free_port()
    with started(command(3, port, tmp_path, "--num_iterations", "1000")) as process:
        wait_for_round(process, tmp_path, 1)
        os.kill(ranks(port)[0], signal.SIGKILL)
        output_of(process)
    assert ranks(port) == {}
