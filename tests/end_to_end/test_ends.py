"""Every exit code of docs/operations.md: its number, and one line that says what to do."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fl.report.metrics import History, RoundRecord
from tests.end_to_end.faults import Fault
from tests.end_to_end.parties import Federation
from tests.end_to_end.small import assert_sums
from tests.fl.records import FullDisk
from tests.patience import flag, scaled

pytestmark = pytest.mark.timeout(120)
Make = Callable[..., Federation]


def last_line(federation: Federation, index: int) -> str:
    return federation.said(index).strip().splitlines()[-1]


def test_finished_is_0_and_each_client_reports_what_was_counted(federation: Make) -> None:
    run = federation(num_iterations="3")
    run.start_all()
    assert [run.wait(index) for index in range(5)] == 5 * [0]
    for index in range(1, 5):
        line = f"client {index}: 3 of 3 updates were counted, the last with loss {index:.4f}\n"
        assert line in run.said(index)
        assert run.said(index).endswith("main.py: the server ended the run\n")


def test_quiet_parties_say_what_became_of_them_only(federation: Make) -> None:
    run = federation(num_iterations="2", quiet="True")
    run.start_all()
    assert [run.wait(index) for index in range(5)] == 5 * [0]
    for index in range(1, 5):
        first, last = (line for line in run.said(index).splitlines() if "note: " not in line)
        assert first.startswith(f"client {index}: 2 of 2 updates were counted")
        assert last == "main.py: the server ended the run"
    lines = [line for line in run.said(0).splitlines() if "note: " not in line]
    assert lines[0].startswith("results in ") and "round 1/2" not in run.said(0)


def test_a_taken_port_is_2(federation: Make) -> None:
    run = federation()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", run.port))
        taken.listen()
        run.start(0)
        assert run.wait(0) == 2
    assert run.said(0) == (
        f"main.py: --server_address 127.0.0.1:{run.port} is in use: choose another port\n"
    )


def test_an_unreachable_server_is_1(federation: Make) -> None:
    run = federation()
    run.start(1)
    assert run.wait(1) == 1
    assert f"client 1 was not let in at 127.0.0.1:{run.port} within" in last_line(run, 1)
    assert "check that the server runs there" in last_line(run, 1)
    assert len(run.said(1).splitlines()) == 3  # who it is, a note on the flags, and this


def test_too_few_clients_are_1(federation: Make) -> None:
    run = federation(round_timeout=flag(1))
    run.setup_seconds = 1.0
    run.start(0)
    run.start(3)
    assert run.wait(0) == 1
    assert last_line(run, 0) == (
        "server: setup failed: 1 clients are left, 3 are needed (missing clients: 1, 2, 4); start "
        "again with all clients"
    )
    assert run.wait(3) == 1


def test_a_dead_server_is_1(federation: Make) -> None:
    run = federation(num_iterations="1000")
    run.start_all()
    run.wait_for_round(2)
    run.signal(0, signal.SIGKILL)
    for index in range(1, 5):
        assert run.wait(index) == 1
        # What became of its updates, then why it ends.
        assert "updates were counted" in run.said(index)
        assert "check that the server runs there" in last_line(run, index)
    assert_sums(run.records())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_server_is_128_more(federation: Make, number: int) -> None:
    run = federation(num_iterations="9999")
    run.draws = True
    run.start_all()
    run.wait_for_round(3)
    run.signal(0, number)
    assert run.wait(0) == 128 + number
    assert_sums(run.records())
    rounds, name = len(run.records()), signal.Signals(number).name
    line = f"server: stopped by {name} after {rounds} rounds, which are in {run.output} with their"
    assert [said.startswith(line) for said in run.said(0).splitlines()].count(True) == 1
    assert (run.output / "model.keras").exists()
    assert not (run.output / "unfinished.keras").exists()
    assert (run.output / "history.png").read_bytes().startswith(b"\x89PNG")
    (events,) = (run.output / "tensorboard").iterdir()
    assert events.stat().st_size > 200 * rounds
    assert {run.wait(index) for index in range(1, 5)} == {0}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_a_client_is_128_more_and_training_goes_on(
    federation: Make, number: int
) -> None:
    run = federation(num_iterations="10")
    run.start_all()
    run.wait_for_round(2)
    run.signal(2, number)
    assert run.wait(2) == 128 + number
    name = signal.Signals(number).name
    assert last_line(run, 2) == f"client 2: stopped by {name}; start it again to take part again"
    assert run.wait(0) == 0
    assert run.records()[-1]["contributors"] == [1, 3, 4]
    assert_sums(run.records())


def test_parties_that_wait_for_the_others_hear_a_signal(federation: Make) -> None:
    run, alone = federation(), federation()
    run.setup_seconds = alone.setup_seconds = 60.0
    run.start(0)
    run.start(1)
    alone.start(2)  # has no server
    run.wait_for_text(0, "waits for clients 1 to 4")
    alone.wait_for_text(2, "server at")
    time.sleep(scaled(2))  # nothing says when client 1 is connected
    run.signal(0, signal.SIGTERM)
    alone.signal(2, signal.SIGTERM)
    assert run.wait(0) == alone.wait(2) == 128 + signal.SIGTERM
    assert "server: stopped by SIGTERM before the first round ended" in run.said(0).splitlines()
    assert last_line(alone, 2).startswith("client 2: stopped by SIGTERM")
    assert run.wait(1) == 1
    assert last_line(run, 1).startswith("client 1: the server ended the run without this client")


def test_a_signal_is_heard_although_an_update_takes_long(federation: Make) -> None:
    run = federation(num_iterations="5", round_timeout=flag(60))
    for index in range(5):
        run.pause = 600.0 if index == 2 else 0.0
        run.start(index)
    run.wait_for_text(0, "collective key")
    time.sleep(0.5)
    assert run.records() == []  # the others wait for client 2
    run.signal(2, signal.SIGTERM)
    assert run.wait(2, 30) == 128 + signal.SIGTERM
    assert run.wait(0) == 0


def test_a_hung_server_cannot_hold_up_a_client_that_is_told_to_stop(federation: Make) -> None:
    run = federation(num_iterations="9999")
    run.start_all()
    run.wait_for_round(2)
    run.signal(0, signal.SIGSTOP)
    run.signal(1, signal.SIGINT)
    assert run.wait(1, 30) == 128 + signal.SIGINT


def test_an_exception_in_a_client_is_1(federation: Make) -> None:
    run = federation(num_iterations="4")
    run.start_all({2: Fault("before_upload", "exception", 2)})
    assert run.wait(2) == 1
    assert last_line(run, 2) == "main.py: Struck: the test says so"
    assert run.wait(0) == 0


# -- a full disk -----------------------------------------------------------------------------------


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few pages, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system")
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_1_and_leaves_whole_lines(federation: Make, tiny_disk: Path) -> None:
    run = federation(num_iterations="9999")
    run.output, run.draws = tiny_disk / "out", True
    logs = run.desk.parent
    run._log = lambda index: logs / f"full.{os.getpid()}.{index}.log"  # type: ignore[method-assign]
    run.start_all()
    assert run.wait(0) == 1, run.said(0)
    line = f"server: no space left to write to {run.output}; free some and start again, or choose "
    assert last_line(run, 0) == line + "another disk with --output"
    assert "Traceback" not in run.said(0)
    records = run.records()  # which fails on half a line
    assert len(records) > 1
    assert_sums(records)
    assert not (run.output / "unfinished.keras").exists()
    assert not list(run.output.glob("*.png"))
    run.stop()


def record(round: int) -> RoundRecord:
    return RoundRecord(round, (1, 2), (), 0.5, 0.5, 0.5, 0.5, 9, 1.0, {}, 1, 1, 1, 1, 0)


@pytest.mark.parametrize("error", [True, False])
def test_half_a_line_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: bool
) -> None:
    history = History(tmp_path)
    history.append(record(1))
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    opened = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *a, **k: FullDisk(opened(*a, **k), error))
        with pytest.raises(OSError, match="No space left"):
            history.append(record(2))
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    history.append(record(3))
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 2
