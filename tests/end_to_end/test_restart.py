"""Processes that are killed and started again with --state_dir."""

import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.faults import Fault
from tests.end_to_end.launcher import command, metrics, ranks, started, wait_for_round
from tests.end_to_end.parties import Federation
from tests.end_to_end.small import assert_sums
from tests.end_to_end.test_roster import PEERS, desk, ended, party
from tests.patience import flag, output_of, wait_until
from tests.ports import free_port

__all__ = ["desk"]
pytestmark = pytest.mark.timeout(600)
EVERYBODY = list(range(1, PEERS + 1))
Make = Callable[..., Federation]


class Parties:
    """Server and clients of one roster, started one by one."""

    def __init__(self, stack: ExitStack, desk: Path, *flags: str) -> None:
        self._stack, self._desk, self._flags = stack, desk, flags
        self._port = free_port()

    def start(self, index: int, *more: str) -> subprocess.Popen[str]:
        state = ("--state_dir", str(self._desk / "state"))
        words = (*self._flags, *state, *more)
        return self._stack.enter_context(party(self._port, self._desk, index, *words))


@contextmanager
def parties(desk: Path, *flags: str) -> Iterator[Parties]:
    with ExitStack() as stack:
        yield Parties(stack, desk, *flags)


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


# -- a model so small that a round takes milliseconds ----------------------------------------------


def test_a_client_that_was_killed_decrypts_again(federation: Make, tmp_path: Path) -> None:
    """All shares are needed, so a sum after the restart is a sum that it helped to decrypt."""
    run = federation(
        peers=PEERS,
        num_iterations="1000",
        resiliency="1",
        min_contributors="2",
        max_failed_rounds="1000",
        # After an abandoned round the server waits that long for those who are gone.
        round_timeout=flag(15),
        state_dir=str(tmp_path / "state"),
    )
    run.start_all()
    run.wait_for_round(2)
    run.signal(1, signal.SIGKILL)
    run.wait(1)
    while run.records()[-1]["abandoned"] is None:
        run.wait_for_round(len(run.records()) + 1)
    run.start(1)
    run.wait_for_round(len(run.records()) + 1)
    while run.records()[-1]["contributors"] != EVERYBODY:
        run.wait_for_round(len(run.records()) + 1)
    assert_sums(run.records())
    for path in (tmp_path / "state").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize(
    "more",
    [
        {"resiliency": "1"},
        {"resiliency": "1", "verify_aggregate": "True"},
        {"resiliency": "1", "aggregation": "plain"},
    ],
    ids=["hybrid", "verified", "plain"],
)
def test_a_server_that_was_killed_goes_on(
    federation: Make, tmp_path: Path, more: dict[str, str]
) -> None:
    rounds = 10
    run = federation(
        peers=PEERS, num_iterations=str(rounds), state_dir=str(tmp_path / "state"), **more
    )
    run.start_all()
    run.wait_for_round(3)
    run.signal(0, signal.SIGKILL)
    run.wait(0)
    done = len(run.records())
    with (run.output / "metrics.jsonl").open("a") as file:
        file.write('{"round": 99, "contrib')
    run.start(0, resume="True")
    assert [run.wait(index) for index in (0, *EVERYBODY)] == (PEERS + 1) * [0], run.said(0)
    assert_went_on(run.records(), rounds, done, run.said(0))
    assert_sums(run.records())


def is_stopped(process: Any) -> bool:
    """Return whether a process has met SIGSTOP."""
    text = Path(f"/proc/{process.pid}/stat").read_text()
    return text.rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("more", [{}, {"verify_aggregate": "True"}], ids=["hybrid", "verified"])
def test_a_server_that_was_killed_in_mid_decryption_ends_that_round(
    federation: Make, tmp_path: Path, more: dict[str, str]
) -> None:
    """All shares are needed, and client 2 hangs with the request for the sum of round 3."""
    run = federation(
        peers=PEERS,
        num_iterations="5",
        resiliency="1",
        round_timeout=flag(60),
        state_dir=str(tmp_path / "state"),
        **more,
    )
    run.start_all({2: Fault("chosen", "stop", 3)})
    run.wait_for_round(2)
    wait_until(lambda: is_stopped(run.processes[2]), lambda: "client 2 is not asked")
    run.signal(0, signal.SIGKILL)
    run.wait(0)
    assert len(run.records()) == 2
    run.start(0, resume="True")
    run.wait_for_text(0, "the sum of round 3 is kept")
    run.signal(2, signal.SIGCONT)
    assert [run.wait(index) for index in (0, *EVERYBODY)] == (PEERS + 1) * [0], run.said(0)
    records = run.records()
    assert [record["round"] for record in records] == [1, 2, 3, 4, 5]
    assert all(record["abandoned"] is None for record in records)
    assert all(record["contributors"] == EVERYBODY for record in records)
    assert [record["attempts"] > 1 for record in records] == [False, False, True, False, False]
    assert_sums(records)


def test_a_decryptor_that_is_cut_off_is_waited_for_and_the_sum_is_had(federation: Make) -> None:
    run = federation(peers=PEERS, num_iterations="4", resiliency="1", round_timeout=flag(60))
    run.start_all({2: Fault("mid_share", "reset", 2)})
    assert [run.wait(index) for index in (0, *EVERYBODY)] == (PEERS + 1) * [0], run.said(0)
    records = run.records()
    assert [record["attempts"] for record in records] == [1, 2, 1, 1]
    assert all(record["contributors"] == EVERYBODY for record in records)
    assert_sums(records)
    assert "s for client 2 to come back: the sum of round 2 is kept" in run.said(0)


def assert_went_on(records: list[dict[str, Any]], rounds: int, done: int, said: str) -> None:
    """All rounds were run, and the restart after `done` of them cost one at most."""
    # All said that they are back; nobody was waited for in vain.
    assert "no answer from" not in said
    assert [record["round"] for record in records] == list(range(1, rounds + 1))
    lost = [record["round"] for record in records if record["abandoned"] is not None]
    assert lost in ([], [done + 1], [done + 2]), lost
    assert all(
        record["contributors"] == EVERYBODY for record in records if record["round"] not in lost
    )
    assert f"{rounds - len(lost)} completed, {len(lost)} abandoned" in said


# -- the real program ------------------------------------------------------------------------------


@pytest.mark.slow
def test_damaged_state_is_refused_in_one_line(desk: Path) -> None:
    output = desk / "out"
    with parties(desk, "--num_iterations", "1000") as start:
        server, first, *_ = [start.start(index) for index in range(PEERS + 1)]
        wait_for_round(server, output, 1)
        code, text = ended(start.start(1))
        assert code == 2
        assert "another process uses" in text
        kill(first)
        path = desk / "state" / "client-1" / "client"
        path.write_bytes(path.read_bytes()[:-1])
        code, text = ended(start.start(1))
        assert code == 2
        assert f"client 1: {path} cannot be used" in text.splitlines()[-1]
        code, text = ended(start.start(0, "--server_address", f"localhost:{free_port()}"))
        assert code == 2
        assert "add --resume True" in text and text.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--verify_aggregate", "True"]], ids=["hybrid", "verified"])
def test_a_server_that_was_killed_goes_on_without_a_launcher(desk: Path, more: list[str]) -> None:
    rounds, output = 10, desk / "out"
    flags = ["--num_iterations", str(rounds), "--resiliency", "1", *more]
    with parties(desk, *flags) as start:
        server, *clients = [start.start(index) for index in range(PEERS + 1)]
        wait_for_round(server, output, 3)
        kill(server)
        done = len(metrics(output))
        with (output / "metrics.jsonl").open("a") as file:
            file.write('{"round": 99, "contrib')
        server = start.start(0, "--resume", "True")
        outcomes = [ended(process) for process in (server, *clients)]
    assert [code for code, _ in outcomes] == [0] * (PEERS + 1), outcomes
    records = metrics(output)
    assert_went_on(records, rounds, done, outcomes[0][1])
    assert records[-1]["loss"] < records[0]["loss"]


@pytest.mark.slow
def test_a_job_that_was_killed_goes_on_under_mpirun(tmp_path: Path) -> None:
    rounds, output = 8, tmp_path / "out"
    flags = ["--num_iterations", str(rounds), "--state_dir", str(tmp_path / "state")]
    port = free_port()
    with started(command(PEERS, port, output, *flags)) as process:
        wait_for_round(process, output, 2)
        for rank in ranks(port).values():
            os.kill(rank, signal.SIGKILL)
        output_of(process)
    again = command(PEERS, free_port(), output, *flags)
    with started(again) as process:
        text = output_of(process)
        assert process.returncode == 2
        assert "add --resume True" in text and text.count("\n") == 1, text
    with started([*again, "--resume", "True"]) as process:
        text = output_of(process)
        assert process.returncode == 0, text
    records = metrics(output)
    assert [record["round"] for record in records] == list(range(1, rounds + 1))
    assert sum(record["abandoned"] is not None for record in records) <= 1
    assert records[-1]["contributors"] == EVERYBODY
    assert records[-1]["loss"] < records[0]["loss"]
