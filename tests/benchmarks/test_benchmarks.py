"""What benchmarks write can be read again, and a peer that is missing is named, not hidden."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks import learning, peers, plots, records, robust
from benchmarks.peers import Script
from benchmarks.records import Spread, Table
from fl.config.resolve import parse_args
from fl.data.load import load_dataset


@dataclass(frozen=True)
class Args:
    length: int


def test_results_name_command_commit_versions_and_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    table = Table("Times", ("step", "time"))
    table.add("encrypt", Spread.of([0.3, 0.1, 0.2]))
    records.save("example", Args(7), [table])
    found = records.load("example")
    assert found["args"] == {"length": 7}
    assert {"command", "commit", "processor", "versions", "load_average", "date"} <= set(found)
    (row,) = found["tables"]["Times"]["rows"]
    assert row["time"] == pytest.approx({"median": 0.2, "low": 0.15, "high": 0.25, "repeats": 3})


def test_a_peer_that_is_not_installed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path)
    found = peers.run(Script("tenseal_ckks", environment="tenseal"), tmp_path)
    assert isinstance(found, str)
    assert "not installed: make bench-peers" in found


def test_a_peer_that_fails_does_not_end_the_benchmark(tmp_path: Path) -> None:
    found = peers.run(Script("plain"), tmp_path / "missing.npz")
    assert isinstance(found, str)
    assert found.startswith("failed: FileNotFoundError")


def test_figures_are_drawn_from_the_committed_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "IMAGES", tmp_path)
    plots.main()
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.png" for name in ("bytes", "learning", "length", "round")
    }


def test_a_table_of_learning_is_measured_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launched: list[str] = []

    def launch(clients: int, flags: list[str]) -> list[dict[str, Any]]:
        launched.append(" ".join(flags))
        record = {"upload_bytes_per_client": 1000, "seconds": 0.5, "saturated": 2}
        ends = {"0": 0.9, "1": 0.8, "2": 0.7}
        final = ends[flags[-1]]
        return [{**record, "abandoned": None, "accuracy": score} for score in (0.1, final)]

    monkeypatch.setattr(learning, "launch", launch)
    monkeypatch.setattr(learning, "RESULTS", tmp_path)

    def call(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["learning", *words])
        learning.main()
        return capsys.readouterr().out

    call("bits", "--only", "8 bits", "--seed", "1")
    assert len(launched) == 1 and launched[0].endswith("--value_bits 8 --seed 1")
    out = call("bits", "--only", "8 bits", "--reuse")
    assert [words[-1] for words in launched] == ["1", "0", "2"]
    (row,) = [line.split() for line in out.splitlines() if " 8 bits " in line and "0.9" in line]
    assert row[2:6] == ["0.8000", "0.900", "0.800", "0.700"]
    assert "1,000" in row and "0.50" in row
    # The row of another table with the same command needs no run.
    assert "0.8000" in call("show", "--only", "8 bits", "--reuse") and len(launched) == 3
    with pytest.raises(SystemExit):
        call("bits", "--only", "9 bits")


def test_every_row_of_learning_is_a_command_that_the_program_takes() -> None:
    for title, rows in learning.TABLES.items():
        assert len({flags for _, flags in rows}) == len(rows), title
        for _, flags in rows:
            words = learning.command(flags, 0).split(" main.py ")[1].split()
            assert parse_args(words).rounds.rounds == 60


def test_hostile_clients_are_the_same_three_in_the_clear_and_encrypted() -> None:
    data = load_dataset("mnist5k", 0)
    case = robust.Case("median", robust.HOSTILE, judged=True)
    result = robust.train(case, seed=0, rounds=2, data=data, summing=robust.InClear(0))
    assert 0 < result.accuracy < 1 and 1 <= result.lost <= 2 * robust.HOSTILE
    hostile = [robust.Clients(data, 0, robust.HOSTILE, robust.FACTOR).hostile for _ in range(2)]
    assert hostile[0] == hostile[1] and len(hostile[0]) == robust.HOSTILE
    cells = robust.row(case, "in clear", [result], [result])
    assert cells[:3] == ["median", "3, -20 times", "yes"] and "+0.0" in cells
