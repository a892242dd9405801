"""The real mpirun: what the user sees when the command cannot work."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.launcher import ROOT
from tests.patience import scaled

MPIRUN = Path(sys.executable).with_name("mpirun")
FLAGS = ["--num_peers", "2", "--robust", "True", "--dataset", "mnist5k", "--server_address"]

pytestmark = pytest.mark.skipif(not MPIRUN.exists(), reason="no mpirun beside this Python")


def mpirun(ranks: int, *argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    if os.getuid() == 0:
        environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return subprocess.run(
        [MPIRUN, "-n", str(ranks), "-H", "localhost", sys.executable, "main.py", *argv],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=scaled(120),
    )


def assert_one_line(done: subprocess.CompletedProcess[str], hint: str) -> None:
    assert done.returncode == 2, done.stderr
    assert not done.stdout
    assert done.stderr.startswith("main.py: ") and done.stderr.count("main.py: ") == 1
    assert done.stderr.strip().count("\n") == 0
    assert hint in done.stderr


def test_wrong_world_size() -> None:
    done = mpirun(4, *FLAGS, "localhost:8080")
    assert_one_line(done, "needs 3 processes, not 4: run mpirun -n 3 -H localhost:3 python main.py")


def test_usage_error_is_printed_once() -> None:
    assert_one_line(mpirun(3, *FLAGS, "localhost"), "write host:port")


def test_help_is_printed_once() -> None:
    done = mpirun(3, "--help")
    assert done.returncode == 0 and not done.stderr.strip()
    assert done.stdout.count("usage: main.py") == 1


def test_taken_address(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = mpirun(3, *FLAGS, address, "--output", str(tmp_path))
    assert_one_line(done, "is in use: choose another port")


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def net():\n    pass\n")
    output = tmp_path / "out"
    for name, hint in (("nope.py:f", "cannot read"), ("own.py:f", "defines no function f")):
        more = ["--model", f"{tmp_path}/{name}", "--output", str(output)]
        done = mpirun(3, *FLAGS, "localhost:8080", *more, KERAS_BACKEND="there is none")
        assert_one_line(done, hint)  # so Keras was not imported
    assert not output.exists()


def test_missing_library(tmp_path: Path) -> None:
    flags = [*FLAGS, "localhost:8080", "--output", str(tmp_path)]
    done = mpirun(3, *flags, MPI4PY_LIBMPI="/none/libmpi.so")
    assert_one_line(done, "no MPI library: run make install")


def test_another_launcher_does_not_start_lonely_servers(tmp_path: Path) -> None:
    # What an mpirun that this MPI does not know looks like: its variables, and MPI alone.
    flags = [*FLAGS, "localhost:8080", "--output", str(tmp_path)]
    codes, lines = [], []
    for rank in range(3):
        done = subprocess.run(
            [sys.executable, "main.py", *flags],
            cwd=ROOT,
            env=os.environ | {"PMI_RANK": str(rank), "PMI_SIZE": "3"},
            capture_output=True,
            text=True,
            timeout=scaled(120),
        )
        codes.append(done.returncode)
        lines += [line for line in done.stderr.splitlines() if line.startswith("main.py: ")]
    assert codes == [2, 0, 0]
    assert len(lines) == 1 and "started 3 processes but MPI sees 1" in lines[0]
