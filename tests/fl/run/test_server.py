"""How the server ends: the picture is drawn last, however the rounds ended."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fl.config.resolve import parse_args
from fl.report.metrics import History, Summary
from fl.report.progress import Display
from fl.run import server
from fl.run.rounds import TooManyFailures
from mphe.net.tcp import AddressError
from tests.fl.records import record
from tests.patience import scaled

ROOT = Path(__file__).resolve().parents[3]
WORDS = "--num_peers 4 --server_address localhost:1 --robust True"


async def finish() -> None:
    """Train to the end."""


async def fail() -> None:
    raise TooManyFailures("10 rounds in a row were abandoned")


async def find_no_port() -> None:
    raise AddressError("the port is taken")


async def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(60)


def play(
    monkeypatch: pytest.MonkeyPatch, directory: Path, ending: Any, rounds: int = 2, *more: str
) -> int:
    """Run the server with rounds that have been played already; return its exit code."""

    class Played(server.Run):
        def __init__(self, config: Any, launch: Any, display: Any) -> None:
            self._config, self._display, self._directory = config, display, directory
            self._data: Any = SimpleNamespace(name="mnist5k")
            self.history = History(directory)
            for number in range(1, rounds + 1):
                self.history.append(record(number))
            self._summary = Summary(self.history)
            self._ending = ""

        async def play(self) -> None:
            await ending()

    # The thread that would end a process which does not leave must not end this one.
    monkeypatch.setattr("fl.run.stopping.LEAVE_SECONDS", 100_000.0)
    monkeypatch.setattr(server, "Run", Played)
    launch: Any = SimpleNamespace(output=str(directory))
    return server.run(parse_args([*WORDS.split(), *more]), launch)


@pytest.mark.parametrize(
    ("ending", "code", "last"),
    [
        (finish, 0, ""),
        (fail, 1, "server: 10 rounds in a row were abandoned\n"),
        (stop, 128 + signal.SIGTERM, "server: stopped by SIGTERM after 2 rounds, which are in"),
    ],
)
def test_the_history_is_drawn_however_the_run_ends(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ending: Any,
    code: int,
    last: str,
) -> None:
    assert play(monkeypatch, tmp_path, ending) == code
    said = capsys.readouterr()
    assert "2 completed, 0 abandoned" in said.out and said.err.startswith(last)
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")


def test_without_rounds_there_is_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert play(monkeypatch, tmp_path, finish, 0) == 0
    assert play(monkeypatch, tmp_path, find_no_port) == 2
    assert not (tmp_path / "history.png").exists()


def test_no_space_for_the_picture_is_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert play(monkeypatch, tmp_path, finish) == 1
    said = capsys.readouterr()
    assert "2 completed" in said.out and said.err.count("\n") == 1
    assert said.err.startswith(f"server: no space left to write to {tmp_path}; free some and start")


def test_quiet_reaches_the_display(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    displays: list[Any] = []

    def remember(*args: Any, **kinds: Any) -> Any:
        displays.append(Display(*args, **kinds))
        return displays[-1]

    monkeypatch.setattr(server, "Display", remember)
    for quiet in ("True", "False"):
        (tmp_path / quiet).mkdir()
        play(monkeypatch, tmp_path / quiet, finish, 0, "--quiet", quiet)
    for display in displays:
        display.say("chatter")
    assert capsys.readouterr().out.count("chatter") == 1


def test_a_client_waits_for_nothing_that_only_the_server_writes_with() -> None:
    code = (
        "import sys, fl.run.client; client = set(sys.modules); import fl.run.server; "
        "print({'matplotlib', 'tensorboard', 'rich'} & client, {'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=scaled(60)
    )
    assert done.stdout == "set() set()\n", done.stderr
