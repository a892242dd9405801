"""The same faults under mpirun: it stays up, and its exit code is 0."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.faults import KINDS
from tests.end_to_end.launcher import command, metrics, ranks, run, started, wait_for_round
from tests.end_to_end.small import LEARNING_RATE, assert_sums
from tests.patience import flag, output_of
from tests.ports import free_port

pytestmark = pytest.mark.timeout(120)
EVERYBODY, OTHERS = [1, 2, 3, 4], [1, 3, 4]


def small_command(port: int, output: Path, desk: Path, *more: str) -> list[str]:
    """Return the documented command with the small model in place of the CNN."""
    data = ["--dataset", f"npz:{desk / 'data.npz'}", "--learning_rate", str(LEARNING_RATE)]
    words = command(4, port, output, "--resiliency", "0.5", *data, *more)
    place = words.index("main.py")
    return [*words[:place], "-m", "tests.end_to_end.small_main", *words[place + 1 :]]


@pytest.mark.parametrize(
    "kind",
    [kind if kind == "kill" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS],
)
def test_mpirun_stays_up(
    desks: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    fault = {"stage": "mid_upload", "kind": kind, "round": 2}
    monkeypatch.setenv("MPHE_TEST_FAULTS", json.dumps({"2": fault}))
    more = ["--num_iterations", "4", "--round_timeout", flag(2)]
    code, text = run(small_command(free_port(), tmp_path, desks(4), *more))
    assert code == 0, text
    records = metrics(tmp_path)
    assert [record["round"] for record in records] == [1, 2, 3, 4]
    assert [record["contributors"] for record in records[:2]] == [
        EVERYBODY,
        EVERYBODY if kind == "slow" else OTHERS,
    ]
    assert_sums(records)
    assert "4 completed, 0 abandoned" in text
    lost = re.search(r"client 2 (in round 2|\d+ times, last in round \d): ", text)
    assert (lost is not None) == (kind != "slow")


# -- signals to a real job -------------------------------------------------------------------------


def rank_of(process: subprocess.Popen[str], port: int, rank: int) -> int:
    return ranks(port, b"tests.end_to_end.small_main")[rank]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("target", ["mpirun", pytest.param("server", marks=pytest.mark.slow)])
def test_a_signal_stops_all_ranks_and_saves(
    desks: Callable[[int], Path], tmp_path: Path, target: str, number: int
) -> None:
    port = free_port()
    with started(small_command(port, tmp_path, desks(4), "--num_iterations", "9999")) as process:
        wait_for_round(process, tmp_path, 3)
        pid = process.pid if target == "mpirun" else rank_of(process, port, 0)
        os.kill(pid, number)
        text = output_of(process, 20)
    assert ranks(port, b"tests.end_to_end.small_main") == {}
    assert_sums(metrics(tmp_path))
    assert (tmp_path / "model.keras").exists()
    if target == "server":
        assert process.returncode == 128 + number, text
        line = f"server: stopped by {signal.Signals(number).name} after {len(metrics(tmp_path))}"
        assert text.count(line) == 1
    else:
        # Open MPI says 1, and prints nothing that its ranks still say.
        assert process.returncode == 1


def test_a_signal_to_a_client_costs_that_client_only(
    desks: Callable[[int], Path], tmp_path: Path
) -> None:
    port = free_port()
    with started(small_command(port, tmp_path, desks(4), "--num_iterations", "8")) as process:
        wait_for_round(process, tmp_path, 2)
        os.kill(rank_of(process, port, 2), signal.SIGTERM)
        text = output_of(process)
    assert process.returncode == 0, text
    records = metrics(tmp_path)
    assert records[-1]["contributors"] == OTHERS
    assert_sums(records)
    assert "client 2 in round" in text


@pytest.mark.slow
def test_the_demonstration_of_dropout(tmp_path: Path) -> None:
    words = [sys.executable, "examples/dropout.py", "--address", f"localhost:{free_port()}"]
    code, text = run([*words, "--rounds", "6", "--output", str(tmp_path / "out")])
    assert code == 0, text
    records = metrics(tmp_path / "out")
    assert records[0]["contributors"] == EVERYBODY
    assert records[-1]["contributors"] == [1, 2, 3]
    assert "killed client 4 with SIGKILL" in text
    assert "client 4 in round" in text and "6 completed, 0 abandoned" in text
    assert text.strip().endswith("mpirun ended with exit code 0")
