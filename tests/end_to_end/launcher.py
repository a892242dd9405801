"""Runs the real command as a user does, and finds its processes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.patience import output_of, scaled, wait_until

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = ("OMPI_", "PMIX_", "PMI_", "SLURM_", "MPI_")


def unlaunched() -> dict[str, str]:
    """Return the environment without what an outer launcher left in it."""
    return {key: value for key, value in os.environ.items() if not key.startswith(LAUNCHERS)}


def party_flags(peers: int, port: int, desk: Path, index: int, output: Path) -> dict[str, str]:
    """Return the flags of one party without a launcher; index 0 is the server."""
    return {
        "--num_peers": str(peers),
        "--server_address": f"localhost:{port}",
        "--robust": "True",
        "--output": str(output),
        "--role": "client" if index else "server",
        "--roster": str(desk / "roster.json"),
        "--identity": str(desk / str(index)),
    }


def command(peers: int, port: int, output: Path, *more: str) -> list[str]:
    """Return the documented command line for `peers` clients."""
    mpirun = Path(sys.executable).with_name("mpirun")
    words = f"-n {peers + 1} -H localhost:{peers + 1}".split()
    flags = f"--num_peers {peers} --server_address localhost:{port} --robust True".split()
    given = {word for word in more if word.startswith("--")}
    defaults = {"--dataset": "mnist5k", "--batch_size_per_worker": "32", "--output": str(output)}
    defaults["--evaluate_every"] = "1"
    rest = [word for key, text in defaults.items() if key not in given for word in (key, text)]
    return [str(mpirun), *words, sys.executable, "main.py", *flags, *rest, *more]


def environment() -> dict[str, str]:
    """Return the environment of a user; root has to say that it means it."""
    extra = {}
    if os.getuid() == 0:
        extra = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return {**os.environ, **extra}


@contextmanager
def started(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a command; nothing of it survives the block."""
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(scaled(10))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run(words: list[str]) -> tuple[int, str]:
    """Run a command to its end; return the exit code and everything it printed."""
    with started(words) as process:
        text = output_of(process)
        return process.returncode, text


def ranks(port: int, program: bytes = b"main.py") -> dict[int, int]:
    """Return the process id of each rank of the run on this port."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
            variables = (directory / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if program not in words or f"localhost:{port}".encode() not in words:
            continue
        for variable in variables:
            if variable.startswith(b"OMPI_COMM_WORLD_RANK="):
                found[int(variable.split(b"=")[1])] = int(directory.name)
    return found


def metrics(output: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl, so far."""
    path = output / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_round(process: subprocess.Popen[str], output: Path, round: int) -> None:
    """Wait until a round is in metrics.jsonl; fail when the run ends before."""

    def has_ended() -> bool:
        over = process.poll() is not None
        if len(metrics(output)) >= round:
            return True
        assert not over, f"the run ended early:\n{process.communicate()[0]}"
        return False

    wait_until(has_ended, lambda: f"round {round} does not end", 240, pause=0.02)
