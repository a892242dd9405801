"""Whatever happens to one client, at whatever stage: training goes on with exact sums."""

import re
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.end_to_end.faults import KINDS, SETUP_STAGES, STAGES, Fault
from tests.end_to_end.parties import Federation
from tests.end_to_end.small import assert_sums
from tests.patience import flag

pytestmark = pytest.mark.timeout(120)
STRUCK = 2
EVERYBODY = [1, 2, 3, 4]
VICTIM = 2
OTHERS = [1, 3, 4]
ALREADY_SENT = ("after_upload", "chosen", "mid_share")
DECRYPTING = ("chosen", "mid_share")
Make = Callable[..., Federation]


def rounds_for(kind: str) -> int:
    """Return few rounds where each may cost a deadline, more where a client has to come back."""
    return 3 if kind == "stop" else 5


def struck_run(make: Make, stage: str, kind: str) -> tuple[Federation, dict[int, int]]:
    """Run a federation in which client 2 meets the fault; return it with all exit codes."""
    # The victim is the quickest, so the server asks it to decrypt.
    federation = make(num_iterations=str(rounds_for(kind)), round_timeout=flag(2))
    fault = Fault(stage, kind, 0 if stage in SETUP_STAGES else STRUCK)
    for index in range(5):
        federation.pause = 0.0 if index == VICTIM else 0.1
        federation.start(index, fault if index == VICTIM else None)
    codes = {0: federation.wait(0)}
    federation.signal(VICTIM, signal.SIGCONT)
    codes |= {index: federation.wait(index) for index in EVERYBODY}
    return federation, codes


def assert_contributors(records: list[dict[str, Any]], stage: str, kind: str) -> None:
    """Who is in which sum, as it must be for this fault."""
    sums, rounds = [record["contributors"] for record in records], len(records)
    if kind == "slow":
        assert sums == rounds * [EVERYBODY]
    elif stage in SETUP_STAGES:
        assert sums == rounds * [OTHERS]
    else:
        assert sums[0] == EVERYBODY
        assert sums[STRUCK - 1] == (EVERYBODY if stage in ALREADY_SENT else OTHERS)
        if kind == "reset":
            assert sums[-1] == EVERYBODY
        else:
            assert sums[STRUCK:] == (rounds - STRUCK) * [OTHERS]
    again = [record["attempts"] > 1 for record in records]
    if stage in DECRYPTING and kind != "slow":
        assert again[STRUCK - 1]
    else:
        assert not again[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", STAGES)
def test_training_goes_on_with_exact_sums(federation: Make, stage: str, kind: str) -> None:
    run, codes = struck_run(federation, stage, kind)
    said, rounds = run.said(0), rounds_for(kind)
    assert {index: codes[index] for index in (0, *OTHERS)} == dict.fromkeys((0, *OTHERS), 0), said
    records = run.records()
    assert [record["round"] for record in records] == list(range(1, rounds + 1))
    assert all(record["abandoned"] is None for record in records)
    assert_contributors(records, stage, kind)
    assert_sums(records)
    assert f"{rounds} completed, 0 abandoned" in said
    summary = said[said.index("clients lost") :]
    if kind == "slow":
        assert "none" in summary
    else:
        once = f"client {VICTIM} in round {0 if stage in SETUP_STAGES else STRUCK}: "
        assert once in summary or re.search(
            rf"client {VICTIM} \d+ times, last in round \d", summary
        )
    expected = {"kill": (-signal.SIGKILL,), "exception": (1,), "slow": (0,)}
    if kind in expected:
        assert codes[VICTIM] in expected[kind], run.said(VICTIM)
    if kind == "exception":
        assert "Struck: the test says so" in run.said(VICTIM)
