"""make compare, as make says it would run it."""

import shlex
import subprocess
import time
from pathlib import Path

from fl.config.configs import Config
from fl.config.resolve import parse_args
from tests.patience import scaled

ROOT = Path(__file__).resolve().parents[3]


def commands(*words: str) -> list[list[str]]:
    """Return the commands that train, and the one that reports."""
    line = ["make", "--dry-run", "compare", *words]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=scaled(60))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").splitlines()
    # What make install would run is not meant.
    return [shlex.split(line) for line in lines if " main.py " in line or " -m fl." in line]


def test_compare_trains_both_ways_with_each_seed_and_reports_on_all() -> None:
    *trainings, reported = commands("SEEDS=3 5 8", "ROUNDS=7")
    runs: list[Config] = []
    for words in trainings:
        assert words[words.index("-n") + 1] == "5"
        runs.append(parse_args(words[words.index("main.py") + 1 :]))
    assert {(run.codec.aggregation, run.learning.seed) for run in runs} == {
        (aggregation, seed) for aggregation in ("plain", "mphe") for seed in (3, 5, 8)
    }
    shown = {(run.rounds.rounds, run.data.dataset, run.session.num_clients) for run in runs}
    assert shown == {(7, "mnist5k", 4)}
    outputs = {run.party.output or "" for run in runs}
    assert len(outputs) == len(runs) == 6
    assert all(output.startswith("runs/compare/") for output in outputs)
    picture = reported[reported.index("--picture") + 1]
    assert {word for word in reported if word.startswith("runs/")} == outputs | {picture}
    assert Path(picture).suffix == ".png"


def test_comparing_again_touches_nothing_of_before() -> None:
    before = commands()
    time.sleep(1.1)
    again = commands()
    places = [
        {word for line in lines for word in line if "runs/" in word} for lines in (before, again)
    ]
    assert len(places[0]) == 5 and not places[0] & places[1]
    assert not any({"rm", "mv", "cp"} & set(line) for line in again)
