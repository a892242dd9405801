"""A link that loses packets or falls silent costs one client its place, never the rounds."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.launcher import ROOT, party_flags
from tests.end_to_end.links import SERVER_IP, NetemLink, SilentProxy, TunLink, namespaces
from tests.end_to_end.parties import Federation
from tests.end_to_end.small import assert_sums
from tests.patience import flag, scaled, wait_until

pytestmark = pytest.mark.timeout(120)
FAR = 4
EVERYBODY, NEAR = [1, 2, 3, 4], [1, 2, 3]
Make = Callable[..., Federation]


def test_a_link_that_falls_silent_is_noticed_by_the_deadline(federation: Make) -> None:
    run = federation(num_iterations="5", round_timeout=flag(2))
    with SilentProxy(run.port) as proxy:
        server_port = run.port
        for index in range(5):
            run.port = proxy.port if index == FAR else server_port
            run.start(index)
        run.wait_for_round(2)
        proxy.fall_silent()
        assert run.wait(0) == 0, run.said(0)
        assert {run.wait(index) for index in NEAR} == {0}
        run.signal(FAR, signal.SIGKILL)
        run.wait(FAR)
    records = run.records()
    assert [record["round"] for record in records] == list(range(1, 6))
    assert records[0]["contributors"] == EVERYBODY
    assert records[-1]["contributors"] == NEAR
    assert all(record["abandoned"] is None for record in records)
    assert_sums(records)
    assert "no answer from client 4 within" in run.said(0)
    # Nobody hung up: it is the deadline that told the server.
    assert "client 4 is gone" not in run.said(0)


# -- real packets ----------------------------------------------------------------------------------


class Apart:
    """The server and three clients in one network namespace, client 4 in another."""

    def __init__(self, run: Federation, spaces: tuple[str, str], stack: ExitStack) -> None:
        self.run, self._spaces, self._stack = run, spaces, stack
        self._processes: dict[int, subprocess.Popen[str]] = {}

    def start_all(self, rounds: int, limit: str) -> None:
        more = {"--num_iterations": str(rounds), "--round_timeout": limit}
        for index in range(5):
            self._start(index, {**more, "--server_address": f"{SERVER_IP}:8080"})

    def _start(self, index: int, more: dict[str, str]) -> None:
        run = self.run
        flags = {
            **party_flags(4, 8080, run.desk, index, run.output),
            "--resiliency": "0.5",
            "--learning_rate": "0.1",
            "--dataset": f"npz:{run.desk / 'data.npz'}",
            "--evaluate_every": "1",
            **more,
        }
        words = ["ip", "netns", "exec", self._spaces[index == FAR], sys.executable, "-m"]
        words += ["tests.end_to_end.small_main", *(word for pair in flags.items() for word in pair)]
        log = self._stack.enter_context(run._log(index).open("w"))
        process = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log, text=True)
        self._processes[index] = process
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)

    def wait_for_round(self, round: int) -> None:
        def has_ended() -> bool:
            over = self._processes[0].poll() is not None
            if len(self.run.records()) >= round:
                return True
            assert not over, self.run.said(0)
            return False

        wait_until(has_ended, lambda: f"round {round} does not end:\n{self.run.said(0)}")

    def wait(self, index: int) -> int:
        return self._processes[index].wait(scaled(90))


@pytest.fixture(params=["netem", "tun"])
def link(request: pytest.FixtureRequest) -> Any:
    return NetemLink() if request.param == "netem" else TunLink()


@pytest.fixture
def apart(desks: Callable[[int], Path], tmp_path: Path, link: Any) -> Iterator[Apart]:
    """Two namespaces with the link between them."""
    with ExitStack() as stack:
        spaces = stack.enter_context(namespaces())
        stack.enter_context(link.between(*spaces))
        # Processes end before the link does.
        inner = stack.enter_context(ExitStack())
        yield Apart(Federation(desks(4), tmp_path / "out", 4, {}), spaces, inner)


def test_one_packet_in_a_hundred_lost_changes_nothing(apart: Apart, link: Any) -> None:
    link.lose(0.01)
    apart.start_all(rounds=30, limit=flag(30))
    assert [apart.wait(index) for index in range(5)] == 5 * [0], apart.run.said(0)
    records = apart.run.records()
    assert [record["contributors"] for record in records] == 30 * [EVERYBODY]
    assert_sums(records)
    if isinstance(link, TunLink):
        assert link.passed > 100 and link.lost > 0


@pytest.mark.parametrize("share", [1.0, 0.99], ids=["nothing passes", "one in a hundred passes"])
def test_a_link_that_breaks_costs_one_client_its_place(
    apart: Apart, link: Any, share: float
) -> None:
    apart.start_all(rounds=5, limit=flag(2))
    apart.wait_for_round(2)
    link.lose(share)
    assert apart.wait(0) == 0, apart.run.said(0)
    assert [apart.wait(index) for index in NEAR] == 3 * [0]
    records = apart.run.records()
    assert [record["round"] for record in records] == list(range(1, 6))
    assert records[0]["contributors"] == EVERYBODY
    assert records[-1]["contributors"] == NEAR
    assert all(record["abandoned"] is None for record in records)
    assert_sums(records)
    said = apart.run.said(0)
    assert "no answer from client 4 within" in said
    assert re.search("client 4 .*in round", said[said.index("clients lost") :])
