"""What benchmarks write can be read again, and a peer that is missing is named, not hidden."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import peers, plots, records
from benchmarks.peers import Script
from benchmarks.records import Spread, Table


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
    assert {path.name for path in tmp_path.iterdir()} == {"bytes.png", "length.png", "round.png"}
