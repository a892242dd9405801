"""Parties without a common launcher: plain processes that share nothing but the roster."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.launcher import ROOT, metrics, party_flags, unlaunched, wait_for_round
from tests.end_to_end.parties import Federation
from tests.patience import flag, output_of, scaled
from tests.ports import free_port

pytestmark = pytest.mark.timeout(600)
PEERS = 3
MAIN = ("main.py",)
# An impostor is to give up soon: the real program tries for two minutes.
IMPATIENT = (
    "import sys, fl.run.client, main\n"
    "fl.run.client.CONNECT_SECONDS = {}\n"
    "main.leave(main.main(sys.argv[1:]))\n"
)


def new_identity(directory: Path) -> dict[str, str]:
    """Run the command that makes an identity; return its roster line."""
    done = subprocess.run(
        [sys.executable, "main.py", "--new_identity", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=True,
    )
    line: dict[str, str] = json.loads(done.stdout)
    return line


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A directory with all identities and the roster."""
    lines = [new_identity(tmp_path / str(index)) for index in range(PEERS + 1)]
    roster = {"server": lines[0], "clients": lines[1:]}
    (tmp_path / "roster.json").write_text(json.dumps(roster))
    return tmp_path


@contextmanager
def party(
    port: int, desk: Path, index: int, *more: str, program: Sequence[str] = MAIN
) -> Iterator[subprocess.Popen[str]]:
    """Start one party; it does not survive the block."""
    flags = {
        **party_flags(PEERS, port, desk, index, desk / "out"),
        "--resiliency": "0.6",
        "--dataset": "mnist5k",
        "--batch_size_per_worker": "32",
        "--evaluate_every": "1",
    }
    flags |= dict(zip(more[::2], more[1::2], strict=True))
    process = subprocess.Popen(
        [sys.executable, *program, *(word for pair in flags.items() for word in pair)],
        cwd=ROOT,
        env=unlaunched(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a process; return its exit code and what it printed."""
    text = output_of(process)
    return process.returncode, text


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Return what a process prints, up to the line that holds the text."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"it ended without {text!r}:\n{said}")


def test_parties_train_and_an_impostor_does_not(desk: Path) -> None:
    port, rounds, limit = free_port(), 12, flag(10)
    # The impostor tells itself that it is client 3; only the server's roster counts.
    roster = json.loads((desk / "roster.json").read_text())
    roster["clients"][2] = new_identity(desk / "impostor")
    (desk / "forged.json").write_text(json.dumps(roster))
    forged = ["--roster", str(desk / "forged.json"), "--identity", str(desk / "impostor")]
    # One organisation brings a file of its own.
    x, y = np.tile(np.arange(28, dtype=np.uint8), (40, 28, 1)), np.arange(40) % 10
    np.savez(desk / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    own = ["--dataset", f"npz:{desk / 'own.npz'}"]
    flags = ["--num_iterations", str(rounds), "--round_timeout", flag(120)]
    with ExitStack() as stack:

        def start(index: int, *more: str, program: Sequence[str] = MAIN) -> subprocess.Popen[str]:
            return stack.enter_context(party(port, desk, index, *flags, *more, program=program))

        parties = [start(0), start(1), start(2, *own)]
        said = read_until(parties[0], "waits for clients")
        impostor = start(3, *forged, program=["-c", IMPATIENT.format(limit)])
        # Client 3's place is free when the impostor asks for it.
        read_until(parties[0], "refused a connection from 127.0.0.1:")
        parties.append(start(3))
        code, refusal = ended(impostor)
        outcomes = [ended(process) for process in parties]
    assert [code for code, _ in outcomes] == [0] * (PEERS + 1), outcomes
    records = metrics(desk / "out")
    assert [record["round"] for record in records] == list(range(1, rounds + 1))
    assert all(record["contributors"] == [1, 2, 3] for record in records)
    assert f"main.py: server on localhost:{port}, waits for clients 1 to 3\n" in said
    assert all("main.py: the server ended the run\n" in text for _, text in outcomes[1:])
    assert code == 1
    assert f"client 3: client 3 was not let in at localhost:{port} within {limit} s" in refusal


def test_a_fresh_identity_is_told_that_it_is_not_on_the_roster(desk: Path) -> None:
    new_identity(desk / "fresh")
    with party(free_port(), desk, 1, "--identity", str(desk / "fresh")) as process:
        code, text = ended(process)
    assert code == 2
    assert text.startswith("main.py: the certificate in ") and text.count("\n") == 1
    assert "is not on" in text


@pytest.mark.slow
def test_a_client_that_was_killed_comes_back_and_a_dead_server_is_noticed(desk: Path) -> None:
    port, flags = free_port(), ["--num_iterations", "1000"]
    with ExitStack() as stack:
        parties = [
            stack.enter_context(party(port, desk, index, *flags)) for index in range(PEERS + 1)
        ]
        server, *clients = parties
        wait_for_round(server, desk / "out", 1)
        os.kill(clients[0].pid, signal.SIGKILL)
        wait_for_round(server, desk / "out", len(metrics(desk / "out")) + 3)
        assert metrics(desk / "out")[-1]["contributors"] == [2, 3]
        # A new process of client 1 has lost the share of the key, and contributes all the same.
        clients[0] = stack.enter_context(party(port, desk, 1, *flags))
        while metrics(desk / "out")[-1]["contributors"] != [1, 2, 3]:
            wait_for_round(server, desk / "out", len(metrics(desk / "out")) + 1)
        os.kill(server.pid, signal.SIGKILL)
        for index, client in enumerate(clients, start=1):
            code, text = ended(client)
            assert code == 1, text
            assert f"client {index}: " in text


def test_a_client_with_other_flags_is_left_out(federation: Callable[..., Federation]) -> None:
    run = federation(peers=PEERS, num_iterations="2")
    for index in range(PEERS + 1):
        run.start(index, **({"value_bits": "12"} if index == 2 else {}))
    assert [run.wait(index) for index in range(PEERS + 1)] == [0, 0, 1, 0]
    assert "client 2 is left out" in run.said(0)
    assert "start all parties with the same flags" in run.said(0)
    # It hears the reason at once, and does not wait for the end of the run.
    assert "client 2: the server leaves this client out: the join of client 2" in run.said(2)
    assert "start all parties with the same flags" in run.said(2)
    said = run.said(0)
    assert said.index("client 2 is left out") < said.index("collective key of 2 clients")
    assert [record["contributors"] for record in run.records()] == [[1, 3], [1, 3]]
