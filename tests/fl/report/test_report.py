"""The report on runs that never happened: numbers, groups, and what it refuses."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from fl.config.flags import UsageError
from fl.config.resolve import parse_args
from fl.report import compare as report
from fl.report.metrics import Evaluation, History, RoundRecord, write_config
from fl.report.past_runs import differences, group_runs, read_run
from tests.fl.records import LOST, OUT, record
from tests.patience import scaled

ROOT = Path(__file__).resolve().parents[3]
THREE = [record(1), record(2, (1, 2)), record(3)]


def make_run(directory: Path, *rounds: RoundRecord, torn: str = "", **flags: Any) -> Path:
    """Write the results of a run as the server does."""
    directory.mkdir()
    words = {"num_peers": 4, "server_address": "localhost:1", "robust": "True", **flags}
    words = {"num_iterations": 3, "output": directory, **words}
    config = parse_args([word for key, text in words.items() for word in (f"--{key}", str(text))])
    write_config(directory, dict(config.flags), {})
    history = History(directory)
    for one in rounds:
        history.append(one)
    if torn:
        with history.path.open("a") as file:
            file.write(torn)
    return directory


def show(capsys: pytest.CaptureFixture[str], picture: Path, *directories: Path) -> list[list[str]]:
    """Return the rows of the table, as words."""
    assert report.main([*map(str, directories), "--picture", str(picture)]) == 0
    text = capsys.readouterr().out
    assert f"curves in {picture}" in text and picture.read_bytes().startswith(b"\x89PNG")
    return [line.split() for line in text.splitlines()]


def test_the_numbers_of_a_run(tmp_path: Path) -> None:
    rounds = [record(number, accuracy=number / 100, seconds=number) for number in range(1, 25)]
    rounds.append(record(25, (), accuracy=0.24, seconds=999.0, upload_bytes_per_client=0))
    run = read_run(make_run(tmp_path / "a", *rounds, num_iterations=30))
    # Completed rounds only; the median accuracy is that of rounds 5 to 24.
    assert report.measure(run) == pytest.approx([0.24, 0.145, 2.0 / 24, 12.5, 557_742, 4.0])
    assert (run.planned, len(run.lines), run.finished) == (30, 25, False)


def test_all_runs_below_a_directory_are_compared_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "compare").mkdir(parents=True)
    make_run(tmp_path / "runs" / "b", *THREE)
    make_run(tmp_path / "runs" / "compare" / "a", *THREE, aggregation="plain")
    target = tmp_path / "report.png"
    rows = show(capsys, target, tmp_path / "runs", tmp_path / "runs" / "b")
    assert [row[0] for row in rows if row and row[0] in ("b", "compare/a")] == ["b", "compare/a"]


def test_a_row_a_run_and_one_for_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    better = [record(number, accuracy=number / 100 + 0.02) for number in (1, 2, 3)]
    runs = [
        make_run(tmp_path / "plain-0", *THREE, aggregation="plain"),
        make_run(tmp_path / "mphe-0", *THREE),
        make_run(tmp_path / "mphe-1", *better, seed=1, server_address="localhost:2", quiet="True"),
        make_run(tmp_path / "mphe-2", *better[:1], seed=2),
    ]
    rows = show(capsys, tmp_path / "all.png", *runs)
    columns = ["0.0300", "0.0200", "0.6667", "0.500", "557,742", "3.33"]
    assert ["plain-0", "plain", "0", "3", "of", "3", "0", *columns] in rows
    assert ["mphe-0", "mphe", "hybrid", "0", "3", "of", "3", "0", *columns] in rows
    assert ["mphe-2", "mphe", "hybrid", "2", "1", "of", "3", "0", "0.0300"] in [r[:9] for r in rows]
    # Two finished runs; the third would spoil the mean.
    assert ["mean", "of", "2", "mphe", "hybrid", "0.0400", "0.0300"] in [r[:7] for r in rows]
    spread = ["±", "deviation", "±", "0.0141", "±", "0.0141", "±", "0.0000", "±", "0.000", "±", "0"]
    assert [*spread, "±", "0.47"] in rows


def test_groups_are_told_apart_by_the_flags_that_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        make_run(tmp_path / "all", *THREE),
        make_run(tmp_path / "half", *THREE, compression_rate=0.5),
    ]
    read = [read_run(directory) for directory in runs]
    assert differences(read) == ["compression_rate"]
    assert [[run.name for run in members] for members in group_runs(read)] == [
        [str(directory)] for directory in runs
    ]
    rows = show(capsys, tmp_path / "r.png", *runs)
    assert ["half", "mphe", "hybrid", "compression_rate", "0.5"] in [row[:5] for row in rows]
    assert [curve.group for curve in report.make_curves(read)] == [
        "mphe hybrid",
        "mphe hybrid, compression_rate 0.5",
    ]


def test_a_flag_that_follows_from_others_is_no_difference(tmp_path: Path) -> None:
    """Nobody gave --decryptors or --min_contributors: they follow from --num_peers."""
    runs = [
        make_run(tmp_path / "four", *THREE, num_peers=4),
        make_run(tmp_path / "six", *THREE, num_peers=6, min_contributors=4),
    ]
    read = [read_run(directory) for directory in runs]
    names = differences(read)
    assert {"num_peers", "decryptors", "min_contributors"} <= set(names)
    assert read[0].differing(names) == "num_peers 4"
    assert read[1].differing(names) == "min_contributors 4, num_peers 6"


def rendered(tables: Sequence[Table], width: int) -> list[str]:
    file = StringIO()
    console = Console(file=file, width=width)
    for table in tables:
        console.print(table)
    return file.getvalue().splitlines()


def test_on_a_narrow_terminal_no_number_is_broken(tmp_path: Path) -> None:
    names = ("a-run-with-a-very-long-name-indeed-2026-11-24", "b")
    flags: dict[str, Any] = {
        "learning_rate": 0.3,
        "learning_rate_schedule": "cosine",
        "local_steps": 5,
    }
    runs = [make_run(tmp_path / names[0], *THREE, **flags), make_run(tmp_path / names[1], *THREE)]
    rows = report.make_rows([read_run(directory) for directory in runs])
    (wide,) = report.make_tables(rows, 400)
    assert any(names[0] in line and "557,742" in line for line in rendered([wide], 400))
    tables = report.make_tables(rows, 80)
    lines = rendered(tables, 80)
    assert len(tables) == 2 and max(map(len, lines)) <= 80
    numbers = ["3", "of", "3", "0", "0.0300", "0.0200", "0.6667", "0.500", "557,742", "3.33"]
    assert [line.split()[1:] for line in lines if "557,742" in line] == [numbers, numbers]
    assert [line.split()[0] for line in lines if "557,742" in line] == ["1", "2"]
    assert "learning_rate" in "".join("".join(line.split()) for line in lines)


def test_the_heading_says_how_many_rounds_the_median_is_of(tmp_path: Path) -> None:
    some = [record(1), record(2, accuracy=None, loss=None), record(3)]
    runs = [make_run(tmp_path / "a", *THREE), make_run(tmp_path / "b", *some)]
    rows = report.make_rows([read_run(directory) for directory in runs])
    assert "median of\nlast 3" in rows.numbers
    many = [record(number) for number in range(1, 30)]
    runs.append(make_run(tmp_path / "c", *many))
    rows = report.make_rows([read_run(directory) for directory in runs])
    assert "median of\nlast 20" in rows.numbers
    (block,) = rows.blocks
    medians = [numbers[3] for _, numbers, together in block if not together]
    assert medians == ["0.0200 (3)", "0.0200 (2)", "0.1950"]


def test_what_was_evaluated_later_joins_its_round(tmp_path: Path) -> None:
    blank = [record(number, accuracy=None, loss=None) for number in (1, 2, 3)]
    directory = make_run(tmp_path / "run", *blank)
    path = directory / "metrics.jsonl"
    lines = path.read_text().splitlines()
    lines.insert(2, Evaluation(1, 0.25, 1.5).to_json())
    lines.append(Evaluation(2, None, 0.5).to_json())
    path.write_text("\n".join(lines) + "\n")
    found = [(line.round, line.accuracy, line.loss) for line in read_run(directory).lines]
    assert found == [(1, 0.25, 1.5), (2, None, 0.5), (3, None, None)]
    measured = report.measure(read_run(directory))
    assert measured[:3] == [0.25, 0.25, 0.5]
    path.write_text(Evaluation(7, 0.25, 1.5).to_json() + "\n")
    with pytest.raises(UsageError, match="line 1 of"):
        read_run(directory)


def test_the_picture_goes_beside_the_runs_and_says_what_it_replaces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    runs = [make_run(tmp_path / "runs" / name, *THREE) for name in ("a", "b")]
    target = tmp_path / "runs" / "report.png"
    for words in ([str(tmp_path / "runs")], [str(run) for run in runs]):
        assert report.main(words) == 0
        said = capsys.readouterr().out
        assert f"curves in {target}" in said
        assert ("in place of an older one" in said) == (len(words) == 2)
    assert list((tmp_path / "cwd").iterdir()) == []
    assert report.main([str(runs[0])]) == 0
    assert (runs[0] / "report.png").exists()


def test_unfinished_runs_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        make_run(tmp_path / "torn", record(1), torn='{"round": 2, "contri'),
        make_run(tmp_path / "new"),
        make_run(tmp_path / "bad", record(1, ()), record(2, ())),
        make_run(tmp_path / "regression", record(1, accuracy=None)),
    ]
    rows = show(capsys, tmp_path / "r.png", *runs)
    nothing = 6 * ["–"]
    assert ["torn", "mphe", "hybrid", "0", "1", "of", "3", "0", "0.0100"] in [r[:9] for r in rows]
    assert ["new", "mphe", "hybrid", "0", "0", "of", "3", "0", *nothing] in rows
    assert ["bad", "mphe", "hybrid", "0", "2", "of", "3", "2", *nothing] in rows
    assert ["1", "of", "3", "0", "–", "–", "2.0000"] in [r[4:11] for r in rows]


def damage(kind: str, directory: Path) -> None:
    config, metrics = directory / "config.json", directory / "metrics.jsonl"
    if kind == "foreign":
        config.write_text('{"name": "some package"}')
    elif kind == "list":
        config.write_text("[1]")
    elif kind == "no json":
        config.write_bytes(b"\xff{")
    elif kind == "missing":
        config.unlink()
    elif kind == "first line":
        metrics.write_text("{\n" + metrics.read_text())
    elif kind == "no record":
        metrics.write_text("[]\n")
    elif kind == "no number":
        metrics.write_text(metrics.read_text().replace('"round": 1,', '"round": 1e999,'))
    elif kind == "directory":
        metrics.unlink()
        metrics.mkdir()


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "name the --output directory of a run"),
        ("foreign", "was not written by this program: name the --output directory of a run"),
        ("list", "was not written by this program"),
        ("no json", "was not written by this program"),
        ("first line", "line 1 of"),
        ("no record", "is damaged: mend or remove it, or leave this run out"),
        ("no number", "line 1 of"),
        ("directory", "leave this run out"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, says: str
) -> None:
    good, bad = (make_run(tmp_path / name, *THREE) for name in ("good", "bad"))
    damage(kind, bad)
    assert report.main([str(good), str(bad), "--picture", str(tmp_path / "r.png")]) == 2
    shown = capsys.readouterr()
    assert not shown.out and shown.err.count("\n") == 1
    assert shown.err.startswith("report: ") and says in shown.err and str(bad) in shown.err
    assert not (tmp_path / "r.png").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name at least one run: python -m fl.report runs"),
        (["{run}", "--pictures", "x.png"], "--pictures"),
        (["{run}", "--picture", "x.jpg"], "--picture must end in .png, not 'x.jpg'"),
        (["{run}", "--picture", "{run}/no/x.png"], "choose another --picture"),
        (["{run}/nowhere"], "name the --output directory of a run"),
    ],
)
def test_wrong_usage_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    run = make_run(tmp_path / "run", *THREE)
    assert report.main([word.format(run=run) for word in words]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and says in shown.err


def test_it_starts_without_tensorflow(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", *THREE)
    code = (
        "import sys; from fl.report import compare as report; code = report.main(sys.argv[1:]); "
        "sys.exit(code or 10 * bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code, str(run), "--picture", str(tmp_path / "r.png")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=scaled(60))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_server_s_own_lines_are_understood(tmp_path: Path) -> None:
    ended = record(1, (1, 2), groups=2, implausible=(LOST,), excluded=(OUT,))
    (line,) = read_run(make_run(tmp_path / "run", ended)).lines
    written = json.loads(ended.to_json())
    assert (line.implausible, line.excluded) == (1, (3,))
    written |= {"implausible": 1, "excluded": [3]}
    for field in dataclasses.fields(line):
        value = getattr(line, field.name)
        assert (list(value) if isinstance(value, tuple) else value) == written[field.name]


def test_what_was_found_out_has_columns_only_where_there_is_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(tmp_path / name, *THREE) for name in ("a", "b")]
    rows = show(capsys, tmp_path / "r.png", *runs)
    assert not any({"cluded", "implausible"} & set(row) for row in rows)
    found = record(2, (1, 2), groups=2, implausible=(LOST, LOST), excluded=(OUT,))
    runs.append(make_run(tmp_path / "c", record(1), found))
    rows = show(capsys, tmp_path / "r.png", *runs)
    assert any({"cluded", "implausible"} & set(row) for row in rows)
    (row,) = (row for row in rows if row[:1] == ["c"])
    assert row[row.index("of") + 2 :][:3] == ["0", "2", "1"]  # abandoned, implausible, excluded
