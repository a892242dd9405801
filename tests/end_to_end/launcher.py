"""Runs the real command as a user does, and finds its processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run(words: list[str], timeout: float = 240) -> tuple[int, str]:
    """Run a command to its end; return the exit code and everything it printed."""
    with started(words) as process:
        text, _ = process.communicate(timeout=timeout)
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
    while len(metrics(output)) < round:
        if process.poll() is not None:
            raise AssertionError(f"the run ended early:\n{process.communicate()[0]}")
        time.sleep(0.05)
