"""How long tests wait: the seconds of a quiet machine, times how busy this one is right now.

A limit in a test is there to notice what hangs, never to say how fast something has to be. So all
of them are written for a quiet machine and go through here, as do the deadlines of the program
under test where a busy machine would make an honest client miss them.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

WORK = 200_000
WORK_SECONDS = 0.008
"""CPU seconds of `_work` on the machine for which the limits are written."""
MOST = 20.0
"""However busy the machine: what takes longer than this many times hangs."""
RENEWED_SECONDS = 1.0

_seen = [-RENEWED_SECONDS, 1.0]  # when the machine was last measured, and how slow it was


def _work() -> int:
    total = 0
    for number in range(WORK):
        total += number * number
    return total


def _probe() -> float:
    """Return how many times longer than on a quiet machine a short piece of work takes."""
    start = time.perf_counter()
    _work()
    return (time.perf_counter() - start) / WORK_SECONDS


def _crowd() -> float:
    """Return how many processes want each core: of the last minute, or now where that is more."""
    now = 0
    try:
        with open("/proc/loadavg") as file:
            now = int(file.read().split()[3].split("/")[0]) - 1  # but this one
    except OSError:
        pass  # no Linux: the average has to do
    return max(os.getloadavg()[0], now) / (os.cpu_count() or 1)


def slowness() -> float:
    """Return how many times longer than on a quiet machine things take now, in 1..MOST."""
    if time.monotonic() - _seen[0] >= RENEWED_SECONDS:
        _seen[1] = min(MOST, max(1.0, _probe(), _crowd()))
        _seen[0] = time.monotonic()
    return _seen[1]


def scaled(seconds: float) -> float:
    """Return what so many seconds of a quiet machine are now."""
    return seconds * slowness()


def flag(seconds: float) -> str:
    """Return scaled seconds as the value of a flag of the program."""
    return f"{round(scaled(seconds), 2):g}"


class Patience:
    """So many seconds of a quiet machine from now on; they pass slowly while it is busy."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._last = time.monotonic()

    def is_over(self) -> bool:
        """Whether the time is up."""
        now = time.monotonic()
        self._left -= (now - self._last) / slowness()
        self._last = now
        return self._left <= 0


def wait_until(
    condition: Callable[[], Any],
    what: Callable[[], str] = lambda: "what is waited for does not come",
    seconds: float = 90.0,
    pause: float = 0.005,
) -> Any:
    """Wait until a condition returns something true, and return that.

    Raises:
        AssertionError: with `what()`, when the patience is over.
    """
    patience = Patience(seconds)
    while not (answer := condition()):
        assert not patience.is_over(), what()
        time.sleep(pause)
    return answer


def output_of(process: subprocess.Popen[str], seconds: float = 240.0) -> str:
    """Wait for a process to end; return everything that it printed.

    Raises:
        AssertionError: with what it printed so far, when the patience is over.
    """
    patience = Patience(seconds)
    while True:
        try:
            return process.communicate(timeout=1)[0]
        except subprocess.TimeoutExpired as still:
            assert not patience.is_over(), f"it hangs:\n{(still.output or b'').decode()}"
