"""The documented command where the decryptors check what they decrypt."""

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
from tests.patience import output_of
from tests.ports import free_port

pytestmark = pytest.mark.timeout(600)

VERIFIED = ("--verify_aggregate", "True", "--resiliency", "0.75", "--num_iterations", "4")


def test_four_clients_train(tmp_path: Path) -> None:
    code, text = run(command(4, free_port(), tmp_path, *VERIFIED))
    assert code == 0, text
    records = metrics(tmp_path)
    assert [record["round"] for record in records] == [1, 2, 3, 4]
    assert all(record["contributors"] == [1, 2, 3, 4] for record in records)
    assert all(record["attempts"] == 1 for record in records)
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    flags = json.loads((tmp_path / "config.json").read_text())["flags"]
    assert (flags["verify_aggregate"], flags["max_corrupt"]) == (True, 1)
    assert flags["min_contributors"] == 3
    assert "a lying server with 1 of 4 clients corrupt" in text
    assert "4 completed, 0 abandoned" in text


@pytest.mark.slow
def test_four_clients_that_prove_what_they_send_train(tmp_path: Path) -> None:
    proving = ("--verify_clients", "True", "--resiliency", "0.75", "--num_iterations", "3")
    code, text = run(command(4, free_port(), tmp_path, *proving))
    assert code == 0, text
    records = metrics(tmp_path)
    assert [record["contributors"] for record in records] == 3 * [[1, 2, 3, 4]]
    flags = json.loads((tmp_path / "config.json").read_text())["flags"]
    assert (flags["verify_clients"], flags["verify_aggregate"]) == (True, False)
    assert "clients prove what they send" in text


@pytest.mark.slow
def test_three_of_four_clients_go_on_when_one_is_killed(tmp_path: Path) -> None:
    port = free_port()
    with started(command(4, port, tmp_path, *VERIFIED, "--num_iterations", "6")) as process:
        wait_for_round(process, tmp_path, 2)
        os.kill(ranks(port)[2], signal.SIGKILL)
        text = output_of(process)
        assert process.returncode == 0, text
    records = metrics(tmp_path)
    assert [record["round"] for record in records] == list(range(1, 7))
    assert records[0]["contributors"] == [1, 2, 3, 4]
    assert records[-1]["contributors"] == [1, 3, 4]
    assert records[-1]["dropped"] == [2]
    assert all(record["abandoned"] is None for record in records)
    assert "client 2 in round" in text
