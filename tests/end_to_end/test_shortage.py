"""Fewer than t decryptors: rounds are abandoned, until they come back or the run gives up."""

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.end_to_end.faults import Fault
from tests.end_to_end.parties import Federation
from tests.end_to_end.small import assert_sums
from tests.patience import flag

pytestmark = pytest.mark.timeout(120)
EVERYBODY = [1, 2, 3, 4]
Make = Callable[..., Federation]


def abandoned(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record["abandoned"] is not None]


def assert_recovered(federation: Federation, rounds: int) -> None:
    """All rounds were run, some abandoned in between, the last ones with everybody."""
    assert federation.wait(0) == 0, federation.said(0)
    assert {federation.wait(index) for index in EVERYBODY} == {0}
    records = federation.records()
    assert [record["round"] for record in records] == list(range(1, rounds + 1))
    lost = abandoned(records)
    assert 1 <= len(lost) < rounds
    assert_sums(records)
    assert records[-1]["contributors"] == EVERYBODY
    said = federation.said(0)
    assert f"abandoned: {lost[0]['abandoned']}" in said
    assert f"{rounds - len(lost)} completed, {len(lost)} abandoned" in said


def test_training_goes_on_when_hung_decryptors_wake_up(federation: Make) -> None:
    run = federation(num_iterations="40", round_timeout=flag(1), resiliency="0.75")
    run.start_all()
    run.wait_for_round(3)
    run.signal(1, signal.SIGSTOP)
    run.signal(2, signal.SIGSTOP)
    while not abandoned(run.records()):
        run.wait_for_round(len(run.records()) + 1)
    run.signal(1, signal.SIGCONT)
    run.signal(2, signal.SIGCONT)
    assert_recovered(run, 40)


def test_training_goes_on_when_lost_connections_come_back(federation: Make) -> None:
    run = federation(num_iterations="8", round_timeout=flag(5), resiliency="0.75")
    for index in (0, *EVERYBODY):
        run.pause = 0.2 if index in (1, 2) else 0.0
        run.start(index, Fault("before_upload", "reset", 2) if index in (1, 2) else None)
    assert_recovered(run, 8)
    assert run.records()[1]["abandoned"] == "2 updates arrived, at least 3 must be in a sum"


def test_the_server_waits_for_a_client_that_is_started_again(federation: Make) -> None:
    limit = flag(60)
    run = federation(
        num_iterations="8", round_timeout=limit, min_contributors="4", max_failed_rounds="3"
    )
    run.start_all({2: Fault("before_upload", "kill", 3)})
    assert run.wait(2) == -signal.SIGKILL
    time.sleep(1)  # long enough for hundreds of rounds to fail
    run.start(2)
    assert_recovered(run, 8)
    assert len(abandoned(run.records())) <= 2
    assert f"waits up to {limit} s for client 2 to come back" in run.said(0)


def test_training_gives_up_when_nobody_comes_back(federation: Make) -> None:
    run = federation(
        num_iterations="40", round_timeout=flag(0.5), resiliency="0.75", max_failed_rounds="3"
    )
    run.start_all()
    run.wait_for_round(3)
    run.signal(3, signal.SIGKILL)
    run.signal(4, signal.SIGKILL)
    assert run.wait(0) == 1
    assert {run.wait(1), run.wait(2)} == {0}
    records, said = run.records(), run.said(0)
    assert len(abandoned(records)) == 3 and len(abandoned(records[-3:])) == 3
    assert_sums(records)
    # The summary, then one line that says what to do.
    assert "client 3 in round" in said and "client 4 in round" in said
    last = said.strip().splitlines()[-1]
    assert last.startswith("server: 3 rounds in a row were abandoned, the last because 2 updates")
    assert last.endswith("restart with all clients, or a lower --resiliency")
    assert (run.output / "model.keras").exists()


def test_a_restarted_client_contributes_but_cannot_make_up_for_a_decryptor(
    federation: Make,
) -> None:
    run = federation(
        num_iterations="100", round_timeout=flag(2), max_failed_rounds="3", min_contributors="2"
    )
    run.start_all()
    run.wait_for_round(2)
    run.signal(1, signal.SIGKILL)
    run.start(1)
    while run.records()[-1]["contributors"] != EVERYBODY:
        run.wait_for_round(len(run.records()) + 1)
    for index in (2, 3):
        run.signal(index, signal.SIGKILL)
    assert run.wait(0) == 1
    assert_sums(run.records())
    assert "1 decryptors answer, 2 are needed" in run.said(0).splitlines()[-1]
