"""What the tests themselves rely on: limits that grow on a busy machine, ports that are free."""

import socket
import subprocess
import sys
import time

import pytest

from tests import patience
from tests.end_to_end.launcher import ROOT
from tests.patience import MOST, Patience, flag, output_of, scaled, slowness, wait_until
from tests.ports import FIRST, LAST, free_port


def busy(monkeypatch: pytest.MonkeyPatch, probe: float, crowd: float) -> None:
    """Let the machine look this busy."""
    monkeypatch.setattr(patience, "_seen", [-patience.RENEWED_SECONDS, 1.0])
    monkeypatch.setattr(patience, "_probe", lambda: probe)
    monkeypatch.setattr(patience, "_crowd", lambda: crowd)


@pytest.mark.parametrize(
    ("probe", "crowd", "factor"),
    [(0.5, 0.2, 1.0), (4.0, 1.0, 4.0), (1.0, 5.5, 5.5), (1e9, 0.0, MOST)],
    ids=["quiet", "slow", "crowded", "stuck"],
)
def test_limits_grow_with_what_keeps_the_machine_busy(
    monkeypatch: pytest.MonkeyPatch, probe: float, crowd: float, factor: float
) -> None:
    busy(monkeypatch, probe, crowd)
    assert slowness() == factor
    assert scaled(3.0) == 3.0 * factor
    assert float(flag(3.0)) == pytest.approx(3.0 * factor, abs=0.01)


def test_seconds_pass_slowly_while_the_machine_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    busy(monkeypatch, 10.0, 0.0)
    waiting = Patience(2.0)
    now += 19.0
    assert not waiting.is_over()
    now += 2.0
    assert waiting.is_over()


def test_what_hangs_is_noticed() -> None:
    with pytest.raises(AssertionError, match="it never comes"):
        wait_until(lambda: False, lambda: "it never comes", seconds=0.01)
    code = "import time; print('begun', flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        with pytest.raises(AssertionError, match="it hangs:\nbegun"):
            output_of(process, 0.1)
        process.kill()


def test_no_two_processes_get_one_port() -> None:
    ours = free_port()
    # With such a process id another process looks at this port first.
    index = next(pid for pid in range(LAST) if FIRST + pid * 97 % (LAST - FIRST) == ours)
    code = f"import os; os.getpid = lambda: {index}; from tests import ports; "
    code += "print(ports.free_port())"
    theirs = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert int(theirs) != ours


def test_a_port_that_somebody_listens_at_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr("tests.ports._candidates", lambda: iter([port]))
        with pytest.raises(AssertionError, match="no free port"):
            free_port()
