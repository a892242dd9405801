"""For all tests: limits that scale, signals that are heard, failures that are told at once."""

import signal
import time
from types import FrameType
from typing import Any

import hypothesis
import pytest
import pytest_timeout
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.patience import scaled

TOLD_LINES = 15
PROGRAMS = {
    f"tests/end_to_end/test_{name}.py"
    for name in (
        "keeping_the_model",
        "private",
        "report",
        "restart",
        "roster",
        "training",
        "verified",
    )
}
"""Several processes with TensorFlow at once: more than one such test would be for no machine."""


# -- limits ----------------------------------------------------------------------------------------

# How long an example takes says how busy the machine is, and nothing else.
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """Let the limit of a test grow while the machine is busy."""
    if settings.method != "signal":
        return None
    started = time.monotonic()
    pytest_timeout.pytest_timeout_set_timer(item, settings)
    give_up: Any = signal.getsignal(signal.SIGALRM)

    def ring(number: int, frame: FrameType | None) -> None:
        __tracebackhide__ = True
        left = scaled(settings.timeout) - (time.monotonic() - started)
        if left > 0:
            signal.setitimer(signal.ITIMER_REAL, left)
        else:
            give_up(number, frame)

    signal.signal(signal.SIGALRM, ring)
    return True


# -- workers ---------------------------------------------------------------------------------------


class OneProgramAtATime(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each worker one test after the other, but all `PROGRAMS` to the same.

    The mark xdist_group would say it too, but xdist 3.8 does not see it under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "programs" if nodeid.partition("::")[0] in PROGRAMS else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneProgramAtATime:
    """Return who gives tests to workers."""
    return OneProgramAtATime(config, log)


# -- signals ---------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Hear SIGINT, which a shell turns off for what it runs in the background, and children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# -- failures --------------------------------------------------------------------------------------


class Teller:
    """Prints a failure when it happens; the whole traceback follows at the end."""

    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            lines = report.longreprtext.strip().splitlines()
            where = "" if report.when == "call" else f" in its {report.when}"
            self._terminal.write_line("")
            self._terminal.write_line(f"FAILED{where} {report.nodeid}", red=True)
            for line in lines[-TOLD_LINES:]:
                self._terminal.write_line(f"    {line}")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Tell failures where there is a terminal, which the workers of xdist have not."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        session.config.pluginmanager.register(Teller(terminal))
