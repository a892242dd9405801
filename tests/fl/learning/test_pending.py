"""A client's state moves on only by rounds that the server announced as counted."""

import threading
from pathlib import Path
from typing import Any

from fl.learning.pending import PendingUpdates
from mphe.net.loopback import Network
from mphe.update import Counts
from tests.fl import federation
from tests.fl.federation import FakeLearner, flags, run
from tests.patience import flag


def test_only_a_counted_round_leaves_a_trace() -> None:
    ledger: PendingUpdates[str] = PendingUpdates()
    ledger.propose(1, "one")
    assert ledger.state is None and (ledger.sent, ledger.counted) == (1, 0)
    ledger.settle(1, True)
    assert ledger.state == "one" and ledger.counted == 1
    ledger.propose(2, "two")
    ledger.settle(2, False)
    assert ledger.state == "one" and (ledger.sent, ledger.counted) == (2, 1)


def test_a_round_is_settled_once_and_only_if_it_was_proposed() -> None:
    ledger: PendingUpdates[str] = PendingUpdates()
    ledger.settle(1, True)
    ledger.propose(2, "two")
    ledger.settle(1, True)
    assert ledger.state is None and ledger.counted == 0
    ledger.settle(2, True)
    ledger.settle(2, True)
    assert ledger.counted == 1


def test_what_was_never_settled_is_forgotten_by_the_next_proposal() -> None:
    ledger: PendingUpdates[str] = PendingUpdates()
    ledger.propose(1, "one")
    ledger.propose(2, "two")
    ledger.settle(1, True)
    assert ledger.state is None
    ledger.settle(2, True)
    assert ledger.state == "two" and (ledger.sent, ledger.counted) == (2, 1)


class Watched(FakeLearner):
    """Keeps a real ledger, of which the test reads the state afterwards."""

    all: dict[int, "Watched"]

    def __init__(self, args: Any, index: int, before: Any) -> None:
        super().__init__(args, index, before)
        self.ledger: PendingUpdates[int] = PendingUpdates()
        Watched.all[index] = self

    def sends(self, round: int, counts: Counts) -> None:
        self.ledger.propose(round, round)

    def counted(self, round: int, counted: bool) -> None:
        self.ledger.settle(round, counted)


def watched_run(
    monkeypatch: Any, *args: Any, **more: Any
) -> tuple[Any, dict[int, PendingUpdates[int]]]:
    Watched.all = {}
    monkeypatch.setattr(federation, "FakeLearner", Watched)
    outcome = run(*args, **more)
    return outcome, {index: learner.ledger for index, learner in Watched.all.items()}


def test_abandoned_rounds_leave_no_trace_at_a_client(tmp_path: Path, monkeypatch: Any) -> None:
    def cut(network: Network, round: int) -> None:
        if round == 2:
            network.cut(1)
            network.cut(2)

    args = flags(tmp_path, "--resiliency", "0.75", "--round_timeout", flag(0.5))
    outcome, ledgers = watched_run(monkeypatch, args, meddle=cut)
    assert [bool(record.abandoned) for record in outcome.history.records] == [False, True, True]
    assert [(x.sent, x.counted, x.state) for x in ledgers.values()] == 2 * [(1, 1, 1)] + 2 * [
        (3, 1, 1)
    ]


def test_a_round_for_which_a_client_was_late_leaves_no_trace(
    tmp_path: Path, monkeypatch: Any
) -> None:
    over = threading.Event()

    def late(index: int, round: int) -> None:
        if (index, round) == (3, 2):
            over.wait(20)

    def let_go(_: Network, round: int) -> None:
        if round == 3:
            over.set()

    args = flags(
        tmp_path, "--resiliency", "0.5", "--round_timeout", flag(1), "--num_iterations", "4"
    )
    outcome, ledgers = watched_run(monkeypatch, args, before=late, meddle=let_go)
    counted = [3 in record.contributors for record in outcome.history.records]
    assert counted[:2] == [True, False]
    rounds = [number for number, there in enumerate(counted, start=1) if there]
    assert ledgers[3].counted == len(rounds)
    assert ledgers[3].state == rounds[-1]
    for index in (1, 2, 4):
        assert (ledgers[index].counted, ledgers[index].state) == (4, 4)


def test_the_clients_count_what_the_server_announced(tmp_path: Path, monkeypatch: Any) -> None:
    outcome, ledgers = watched_run(monkeypatch, flags(tmp_path))
    for index, ledger in ledgers.items():
        rounds = [r.round for r in outcome.history.records if index in r.contributors]
        assert (ledger.sent, ledger.counted, ledger.state) == (3, len(rounds), rounds[-1])
