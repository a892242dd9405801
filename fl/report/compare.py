"""Compares runs: one table on the terminal and one picture.

python -m fl.report DIRECTORY… [--picture FILE.png]
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev

from rich import box
from rich.console import Console
from rich.table import Table

from fl.config.arguments import OneLineParser
from fl.config.exits import EXIT_USAGE
from fl.config.flags import UsageError
from fl.report import picture
from fl.report.past_runs import PastRun, differences, find_runs, group_runs, read_run

LAST = 20
"""Completed rounds whose median accuracy is shown."""
UNLIMITED = 10_000
WIDEST_FLAGS = 36
NOTHING = "–"
COLUMNS = (
    ("final\naccuracy", 4),
    (f"median of\nlast {LAST}", 4),
    ("final\nloss", 4),
    ("seconds\na round", 3),
    ("bytes up\na client", 0),
    ("mean con-\ntributors", 2),
)
"""Heading of each measured column, and its digits after the point."""


def measure(run: PastRun) -> list[float | None]:
    """Return the number of each of COLUMNS, None where a run has none.

    They are: accuracy and median accuracy of the last rounds, loss, median seconds of a round,
    mean bytes that a client sends up in a round, mean number of contributors.
    """
    done = run.completed
    if not done:
        return [None] * len(COLUMNS)
    accuracies = [line.accuracy for line in done[-LAST:] if line.accuracy is not None]
    return [
        done[-1].accuracy,
        median(accuracies) if accuracies else None,
        done[-1].loss,
        median(line.seconds for line in done),
        mean(line.upload_bytes_per_client for line in done),
        mean(len(line.contributors) for line in done),
    ]


def make_table(runs: Sequence[PastRun]) -> Table:
    """Return one row a run, and one for each group of finished runs that differ in seed only."""
    names = differences(runs)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("run", "sums", *(["other flags"] if names else []), "seed"):
        table.add_column(heading, max_width=WIDEST_FLAGS if heading == "other flags" else None)
    for heading in ("rounds", "aban-\ndoned", *(heading for heading, _ in COLUMNS)):
        table.add_column(heading, justify="right")
    short = _short([run.name for run in runs])
    for members in group_runs(runs):
        for run in members:
            table.add_row(
                short[run.name],
                run.sums,
                *([run.differing(names)] if names else []),
                str(run.flags.get("seed", NOTHING)),
                f"{len(run.lines)} of {run.planned}",
                str(len(run.lines) - len(run.completed)),
                *_cells([measure(run)]),
            )
        finished = [run for run in members if run.finished]
        if len(finished) > 1:
            # What the row leaves empty says nothing of several seeds together.
            blank = [""] * (4 if names else 3)
            cells = _cells([measure(run) for run in finished])
            name = f"mean of {len(finished)}\n± deviation"
            table.add_row(name, finished[0].sums, *blank, *cells, style="bold")
        table.add_section()
    return table


def _short(names: Sequence[str]) -> dict[str, str]:
    """Return each directory without what all of them have in common."""
    if len(set(names)) < 2:
        return {name: name for name in names}
    common = os.path.commonpath([os.path.abspath(name) for name in names])
    return {name: os.path.relpath(os.path.abspath(name), common) for name in names}


def _cells(measured: Sequence[Sequence[float | None]]) -> list[str]:
    """Return each column of one run, or mean ± sample standard deviation of several."""
    cells = []
    for values, (_, digits) in zip(zip(*measured, strict=True), COLUMNS, strict=True):
        known = [value for value in values if value is not None]
        spread = f"\n± {stdev(known):,.{digits}f}" if len(known) > 1 else ""
        whole = len(known) == len(values)
        cells.append(f"{mean(known):,.{digits}f}{spread}" if whole else NOTHING)
    return cells


def make_curves(runs: Sequence[PastRun]) -> list[picture.Curve]:
    """Return what is drawn of each run; a group is named by how it sums up and what is special."""
    names = differences(runs)
    labels = [", ".join(filter(None, [run.sums, run.differing(names)])) for run in runs]
    return [picture.Curve(label, run.lines) for label, run in zip(labels, runs, strict=True)]


def main(argv: Sequence[str]) -> int:
    """Show the table and write the picture; return the exit code."""
    try:
        given = _parse(argv)
        target = Path(given.picture)
        found = [run for directory in given.directories for run in find_runs(Path(directory))]
        runs = [read_run(directory) for directory in dict.fromkeys(found)]
    except UsageError as error:
        return _fail(str(error))
    except SystemExit:  # after --help
        return 0
    # As wide as it has to be: a narrow terminal breaks lines, but no number is cut.
    console = Console(highlight=False, width=UNLIMITED)
    console.print(make_table(runs))
    try:
        picture.write(picture.draw_comparison(make_curves(runs)), target)
    except OSError as error:
        return _fail(f"cannot write {target} ({error.strerror}): choose another --picture")
    console.print(f"curves in {target}", markup=False, soft_wrap=True)
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; UsageError for what cannot work."""
    parser = OneLineParser(
        prog="python -m fl.report",
        allow_abbrev=False,
        description="Compare runs, finished or not, in one table and one picture.",
    )
    parser.add_argument(
        "directories", nargs="*", metavar="DIRECTORY", help="of a run, or of several"
    )
    parser.add_argument(
        "--picture", metavar="FILE.png", default="report.png", help="default: %(default)s"
    )
    given = parser.parse_args(list(argv))
    if not given.directories:
        raise UsageError("name at least one run: python -m fl.report runs")
    if Path(given.picture).suffix != ".png":
        raise UsageError(f"--picture must end in .png, not {given.picture!r}")
    return given


def _fail(line: str) -> int:
    sys.stderr.write(f"report: {line}\n")
    return EXIT_USAGE
