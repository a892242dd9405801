"""Two hundred rounds while clients die, hang, lose connections and come back, around t."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.parties import Federation
from tests.end_to_end.small import wrong_rounds
from tests.patience import flag, scaled, slowness

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CLIENTS, THRESHOLD, ROUNDS = range(1, 9), 4, 200
CALM_ROUND = ROUNDS - 15
MOST_DOWN = 6
FAULTS_A_SECOND = 4.0
TICK = 0.02
TIME_WAIT = "06"
Make = Callable[..., Federation]


class Chaos:
    """Strikes random clients and lets them return, as one seed says."""

    def __init__(self, federation: Federation, seed: int) -> None:
        self._run = federation
        self._random = random.Random(seed)
        self._returns: dict[int, tuple[float, str]] = {}
        self._holders = set(CLIENTS)
        self.injected: Counter[str] = Counter()

    def tick(self) -> None:
        """Let those return whose time has come, and perhaps strike somebody."""
        now = time.monotonic()
        for index in [i for i, (due, _) in self._returns.items() if due <= now]:
            self._let_return(index)
        for index in CLIENTS:  # who was struck before it was let in has given up
            if index not in self._returns and not self._run.processes[index].is_alive():
                self._run.start(index)
        often = FAULTS_A_SECOND * TICK / slowness()  # as many a round on a busy machine
        if self._random.random() < often and len(self._returns) < MOST_DOWN:
            self._strike(now)

    def calm(self) -> None:
        """Let everybody return."""
        for index in list(self._returns):
            self._let_return(index)

    def _strike(self, now: float) -> None:
        index = self._random.choice([i for i in CLIENTS if i not in self._returns])
        kind = self._random.choice(["kill", "stop", "stop", "reset"])
        # Whoever dies has lost its share: as many must be left as decrypt, and one more.
        if kind == "kill" and index in self._holders:
            if len(self._holders) <= THRESHOLD + 1:
                kind = "reset"
            else:
                self._holders.discard(index)
        self.injected[kind] += 1
        number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "reset": signal.SIGUSR1}[kind]
        self._run.signal(index, number)
        if kind != "reset":
            self._returns[index] = (now + scaled(self._random.uniform(0.1, 2.0)), kind)

    def _let_return(self, index: int) -> None:
        _, kind = self._returns.pop(index)
        if kind == "stop":
            self._run.signal(index, signal.SIGCONT)
        else:
            self._run.start(index)


def open_files(federation: Federation, index: int) -> int:
    return len(os.listdir(f"/proc/{federation.processes[index].pid}/fd"))


def sockets(port: int) -> list[str]:
    """Return the sockets of this port that are not just waiting to be forgotten."""
    found = []
    for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            words = line.split()
            ports = {int(words[1].rpartition(":")[2], 16), int(words[2].rpartition(":")[2], 16)}
            if port in ports and words[3] != TIME_WAIT:
                found.append(line)
    return found


def watch(federation: Federation, until: int, tick: Callable[[], None]) -> float:
    """Call `tick` until so many rounds have ended; return the longest wait for a round."""
    longest, rounds, since = 0.0, len(federation.records()), time.monotonic()
    while rounds < until:
        assert federation.processes[0].is_alive(), federation.said(0)
        tick()
        time.sleep(TICK)
        now, ended = time.monotonic(), len(federation.records())
        if ended > rounds:
            longest, since, rounds = max(longest, now - since), now, ended
    return longest


@pytest.mark.parametrize("seed", [1])
def test_every_finished_round_is_right_and_nothing_leaks(
    federation: Make, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run = federation(
        peers=8,
        pause=0.05,
        num_iterations=str(ROUNDS),
        round_timeout=flag(1),
        max_failed_rounds=str(ROUNDS),
    )
    run.start_all()
    run.wait_for_round(2)
    before = {index: open_files(run, index) for index in (0, *CLIENTS)}
    chaos = Chaos(run, seed)
    longest = watch(run, CALM_ROUND, chaos.tick)
    chaos.calm()
    longest = max(longest, watch(run, ROUNDS - 3, lambda: None))
    after = {i: open_files(run, i) for i in (0, *CLIENTS) if run.processes[i].is_alive()}
    codes = [run.wait(index) for index in (0, *CLIENTS)]
    records = run.records()
    aborted = [record for record in records if record["abandoned"] is not None]
    wrong = wrong_rounds(records)
    with capsys.disabled():
        print(
            f"\nsoak: {len(records)} rounds run, {chaos.injected.total()} faults injected "
            f"({', '.join(f'{count} {kind}' for kind, count in sorted(chaos.injected.items()))}), "
            f"{len(records) - len(aborted)} completed, {len(aborted)} aborted, {len(wrong)} wrong, "
            f"longest hold-up {longest:.1f} s"
        )
    assert codes[0] == 0, run.said(0)
    assert [record["round"] for record in records] == list(range(1, ROUNDS + 1))
    assert wrong == []
    assert min(chaos.injected.values()) > 0 and len(aborted) < ROUNDS / 2
    # A connection that was replaced may still be closing.
    assert all(count <= before[index] + 1 for index, count in after.items()), (before, after)
    assert all(process.exitcode is not None for process in [*run.processes.values(), *run.past])
    assert sockets(run.port) == []
    assert "Traceback" not in "".join(run.said(index) for index in (0, *CLIENTS))
