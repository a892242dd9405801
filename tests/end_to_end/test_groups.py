"""Groups under mpirun: one client of eight spoils every sum that it is in."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.launcher import command, metrics, run
from tests.end_to_end.small import LEARNING_RATE, assert_sums
from tests.ports import free_port

ROUNDS, CULPRIT = 12, 3


@pytest.mark.timeout(180)
def test_the_culprit_is_named_and_excluded_and_training_goes_on(
    desks: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPHE_TEST_CULPRIT", str(CULPRIT))
    data = ["--dataset", f"npz:{desks(8) / 'data.npz'}", "--learning_rate", str(LEARNING_RATE)]
    groups = f"--resiliency 0.25 --min_contributors 2 --max_groups 4 --num_iterations {ROUNDS}"
    words = command(8, free_port(), tmp_path, *data, *groups.split())
    place = words.index("main.py")
    code, text = run([*words[:place], "-m", "tests.end_to_end.small_main", *words[place + 1 :]])
    assert code == 0, text
    # As docs/robustness.md has it.
    assert (
        "4 groups of at least 2: withstands 0 colluding contributors; names culprits while" in text
    )
    found = f"client {CULPRIT} is excluded: it cheated: no other client explains"
    assert len([line for line in text.splitlines() if line.startswith(found)]) == 1
    records = metrics(tmp_path)
    assert [record["round"] for record in records] == list(range(1, ROUNDS + 1))
    assert_sums(records)
    (named,) = (record for record in records if record["excluded"])
    assert named["excluded"][0]["client"] == CULPRIT and named["round"] <= 6
    for record in records:
        lost = record["round"] <= named["round"]
        assert len(record["implausible"]) == lost and record["abandoned"] is None
        assert text.count(f"round {record['round']}: the sum of clients") == lost
    assert records[-1]["contributors"] == [1, 2, 4, 5, 6, 7, 8] and records[-1]["dropped"] == []
