"""What does encryption cost a whole training round, against --aggregation plain?

    python -m benchmarks.round [--rounds 12]

Runs the documented command for n = 2, 4 and 8, encrypted and plain in turn, on mnist5k, and reads
metrics.jsonl. All processes share this machine's cores.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.records import Spread, Table, save, show
from fl.report.metrics import STAGES

ROOT = Path(__file__).parents[1]
WARM_UP = 3
SIZES = (2, 4, 8)
TIMEOUT = 400.0


@dataclass(frozen=True)
class Args:
    """What is measured."""

    rounds: int


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(clients: int, flags: Sequence[str], timeout: float = TIMEOUT) -> list[dict[str, Any]]:
    """Run a training on a free port and return its metrics.

    Raises:
        subprocess.SubprocessError: it failed, or took longer than `timeout` seconds.
    """
    with tempfile.TemporaryDirectory() as directory:
        mpirun = Path(sys.executable).with_name("mpirun")
        words = f"-n {clients + 1} -H localhost:{clients + 1} {sys.executable} main.py".split()
        where = f"--server_address localhost:{free_port()} --output {directory}".split()
        where += ["--evaluate_every", "1"]  # in every round, as all runs here have been measured
        # One thread is for the other benchmarks; here the program decides.
        environment = {key: value for key, value in os.environ.items() if "NUM_THREADS" not in key}
        subprocess.run(
            [str(mpirun), *words, "--num_peers", str(clients), *flags, *where],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=timeout,
            check=True,
        )
        text = (Path(directory) / "metrics.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


def train(clients: int, aggregation: str, rounds: int) -> list[dict[str, Any]]:
    """Run a training and return its metrics without the first rounds."""
    flags = (
        "--robust True --resiliency 0.75 --dataset mnist5k "
        f"--num_iterations {rounds + WARM_UP} --aggregation {aggregation}"
    )
    return launch(clients, flags.split())[WARM_UP:]


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="rounds of each training")
    args = Args(**vars(parser.parse_args()))
    table = Table(
        "Training rounds",
        ("clients", "aggregation", "round", "times plain", *STAGES, "upload bytes"),
    )
    for clients in SIZES:
        plain = 0.0
        for aggregation in ("plain", "mphe"):
            records = train(clients, aggregation, args.rounds)
            whole = Spread.of([record["seconds"] for record in records])
            plain = plain or whole.median
            stages = [
                Spread.of([record["seconds_by_stage"][stage] for record in records])
                for stage in STAGES
            ]
            upload = records[-1]["upload_bytes_per_client"]
            table.add(clients, aggregation, whole, whole.median / plain, *stages, upload)
        # Memory may not suffice for the next: what is there is kept.
        save("round", args, [table])
    show(table)


if __name__ == "__main__":
    main()
