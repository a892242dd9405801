"""Train four clients under mpirun, kill one in mid-training, and see the others finish."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLIENTS = 4
ROOT = Path(__file__).resolve().parents[1]


def start(address: str, rounds: int, output: Path) -> subprocess.Popen[bytes]:
    """Start the documented command; any two of the four clients can decrypt."""
    ranks = CLIENTS + 1
    mpirun = Path(sys.executable).with_name("mpirun")
    words = f"-n {ranks} -H localhost:{ranks} {sys.executable} main.py --num_peers {CLIENTS}"
    flags = f"--server_address {address} --robust True --resiliency 0.5 --dataset mnist5k"
    rest = f"--num_iterations {rounds} --output {output}"
    return subprocess.Popen([str(mpirun), *f"{words} {flags} {rest}".split()], cwd=ROOT)


def wait_for_rounds(job: subprocess.Popen[bytes], output: Path, rounds: int) -> None:
    """Wait until so many rounds are in metrics.jsonl, or the job has ended."""
    path = output / "metrics.jsonl"
    while job.poll() is None:
        if path.exists() and path.read_bytes().count(b'"contributors"') >= rounds:
            return
        time.sleep(0.05)


def find_rank(rank: int, output: Path) -> int | None:
    """Return the process id of a rank of the run that writes to `output`."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
            variables = (directory / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is another user's
            continue
        ours = b"main.py" in words and str(output).encode() in words
        if ours and f"OMPI_COMM_WORLD_RANK={rank}".encode() in variables:
            return int(directory.name)
    return None


def main() -> int:
    """Run the demonstration; return mpirun's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="localhost:8080", help="of the server")
    parser.add_argument("--rounds", type=int, default=20, help="the kill comes half way")
    parser.add_argument("--output", type=Path, help="new directory; default: a temporary one")
    given = parser.parse_args()
    output = given.output or Path(tempfile.mkdtemp(prefix="dropout-")) / "run"
    job = start(given.address, given.rounds, output)
    try:
        wait_for_rounds(job, output, given.rounds // 2)
        victim = find_rank(CLIENTS, output)
        if victim is not None:
            os.kill(victim, signal.SIGKILL)
            print(f"--- killed client {CLIENTS} with SIGKILL ---", flush=True)
        code = job.wait()
    finally:
        job.terminate()
    print(f"--- results in {output}; mpirun ended with exit code {code}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
