"""Server and clients as real processes of the real program, forked from one that has it loaded."""

import json
import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np

import fl.run.server
import main
from fl.launch.identity import identity_command
from tests.end_to_end import faults, small
from tests.end_to_end.faults import Fault
from tests.end_to_end.launcher import metrics, party_flags, unlaunched
from tests.patience import Patience, scaled, wait_until
from tests.ports import free_port

PAUSE = 0.05
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.end_to_end.parties"])


def play(
    argv: Sequence[str],
    log: Path,
    pause: float,
    setup_seconds: float,
    fault: Fault | None,
    draws: bool,
) -> None:
    """Be one party, in a process of its own."""
    for name in set(os.environ) - set(unlaunched()):
        del os.environ[name]
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    fl.run.server.SETUP_SECONDS = scaled(setup_seconds)
    if not draws:  # half a second that many tests can do without
        fl.run.server.Run.draw = lambda self: None  # type: ignore[method-assign]
    fl.run.server.FLUSH_SECONDS = scaled(1.0)  # type: ignore[attr-defined]
    small.install(pause)
    faults.install(fault)
    main.leave(main.main(argv))


def make_desk(directory: Path, peers: int) -> Path:
    """Make identities, the roster and a data set in a new directory."""
    lines = []
    for index in range(peers + 1):
        line, _ = identity_command(["--new_identity", str(directory / str(index))], None)
        lines.append(json.loads(line))
    (directory / "roster.json").write_text(json.dumps({"server": lines[0], "clients": lines[1:]}))
    x, y = np.zeros((20, 28, 28), np.uint8), np.arange(20) % 10
    np.savez(directory / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return directory


@dataclass
class Federation:
    """The parties of one run; `stop` leaves none of them behind."""

    desk: Path
    output: Path
    peers: int
    flags: Mapping[str, str]
    pause: float = PAUSE
    setup_seconds: float = 2.5
    draws: bool = False
    port: int = field(default_factory=free_port)
    processes: dict[int, ForkServerProcess] = field(default_factory=dict)
    past: list[ForkServerProcess] = field(default_factory=list)

    def start(self, index: int, fault: Fault | None = None, /, **more: str) -> None:
        """Start a party, or start it again; `more` are flags of its own."""
        if index in self.processes:
            self.past.append(self.processes[index])
        given = {
            **party_flags(self.peers, self.port, self.desk, index, self.output),
            "--server_address": f"127.0.0.1:{self.port}",
            "--resiliency": "0.5",
            "--learning_rate": str(small.LEARNING_RATE),
            "--dataset": f"npz:{self.desk / 'data.npz'}",
            "--evaluate_every": "1",
            **self.flags,
            **{f"--{name}": text for name, text in more.items()},
        }
        argv = [word for pair in given.items() for word in pair]
        log = self._log(index)
        arguments = (argv, log, self.pause, self.setup_seconds, fault, self.draws)
        process = _forks.Process(target=play, args=arguments)
        process.start()
        self.processes[index] = process

    def start_all(self, strikes: Mapping[int, Fault] | None = None) -> None:
        """Start everybody; some meet a fault."""
        for index in range(self.peers + 1):
            self.start(index, (strikes or {}).get(index))

    def signal(self, index: int, number: int) -> None:
        """Send a signal to a party that still runs."""
        process = self.processes[index]
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, number)

    def wait(self, index: int, seconds: float = 90.0) -> int:
        """Return the exit code of a party, minus the signal that killed it."""
        patience, process = Patience(seconds), self.processes[index]
        while process.exitcode is None:
            assert not patience.is_over(), f"party {index} hangs:\n{self.said(index)}"
            process.join(1.0)
        return process.exitcode

    def wait_for_round(self, round: int) -> None:
        """Wait until so many rounds have ended."""

        def has_ended() -> bool:
            alive = self.processes[0].is_alive()
            if len(metrics(self.output)) >= round:
                return True
            assert alive, self.said(0)
            return False

        wait_until(has_ended, lambda: f"round {round} does not end:\n{self.said(0)}")

    def wait_for_text(self, index: int, text: str) -> None:
        """Wait until a party has printed something."""

        def has_said() -> bool:
            alive = self.processes[index].is_alive()
            if text in self.said(index):
                return True
            assert alive, self.said(index)
            return False

        wait_until(has_said, lambda: f"party {index} does not say {text!r}:\n{self.said(index)}")

    def said(self, index: int) -> str:
        """Return what a party printed."""
        log = self._log(index)
        return log.read_text() if log.exists() else ""

    def records(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl."""
        return metrics(self.output)

    def stop(self) -> None:
        """Kill whoever is left."""
        for process in [*self.processes.values(), *self.past]:
            process.kill()
            process.join()
            process.close()
        self.processes, self.past = {}, []

    def _log(self, index: int) -> Path:
        return self.output.parent / f"{self.output.name}.{index}.log"


__all__ = ["Federation", "make_desk", "signal"]
