"""Compares runs: one table on the terminal and one picture.

python -m fl.report DIRECTORY… [--picture FILE.png]
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev

from rich import box
from rich.console import Console
from rich.table import Table

from fl.config.arguments import OneLineParser
from fl.config.exits import EXIT_USAGE
from fl.config.flags import UsageError
from fl.report import picture
from fl.report.past_runs import Line, PastRun, differences, find_runs, group_runs, read_run

LAST = 20
"""Evaluated rounds whose median accuracy is shown."""
UNLIMITED = 10_000
WIDEST_FLAGS = 36
PICTURE = "report.png"
NOTHING = "–"
MEASURED = (
    ("final\naccuracy", 4),
    ("median of\nlast {}", 4),
    ("final\nloss", 4),
    ("seconds\na round", 3),
    ("bytes up\na client", 0),
    ("mean con-\ntributors", 2),
)
"""Heading of each measured column, and its digits after the point."""
FOUND_OUT: tuple[tuple[str, Callable[[Line], int]], ...] = (
    ("implausible\ngroups", lambda line: line.implausible),
    ("ex-\ncluded", lambda line: len(line.excluded)),
)
"""Heading of each column that is there only where it is not 0 in all runs, and what it counts."""


def measure(run: PastRun) -> list[float | None]:
    """Return the number of each of MEASURED, None where a run has none.

    They are: accuracy and median accuracy of the last rounds that were evaluated, loss, median
    seconds of a round, mean bytes that a client sends up in a round, mean number of contributors.
    """
    done = run.completed
    if not done:
        return [None] * len(MEASURED)
    accuracies = last_accuracies(run)
    losses = [line.loss for line in done if line.loss is not None]
    return [
        accuracies[-1] if accuracies else None,
        median(accuracies) if accuracies else None,
        losses[-1] if losses else None,
        median(line.seconds for line in done),
        mean(line.upload_bytes_per_client for line in done),
        mean(len(line.contributors) for line in done),
    ]


def last_accuracies(run: PastRun) -> list[float]:
    """Return the accuracies of the last completed rounds that were evaluated, LAST at most."""
    return [line.accuracy for line in run.completed if line.accuracy is not None][-LAST:]


@dataclass(frozen=True)
class Rows:
    """What is shown of the runs: headings and cells, in blocks of runs that belong together.

    Attributes:
        names: headings of the columns that say which run it is.
        numbers: headings of those that say how it went.
        blocks: for each block its rows: cells under `names`, cells under `numbers`, whether the
            row is of several runs together.
    """

    names: Sequence[str]
    numbers: Sequence[str]
    blocks: Sequence[Sequence[tuple[Sequence[str], Sequence[str], bool]]]


def make_rows(runs: Sequence[PastRun]) -> Rows:
    """Return one row a run, and one for each group of finished runs that differ in seed only."""
    names = differences(runs)
    found_out = [
        (heading, count)
        for heading, count in FOUND_OUT
        if any(count(line) for run in runs for line in run.lines)
    ]
    short = _short([run.name for run in runs])
    counted = max((len(last_accuracies(run)) for run in runs), default=0) or LAST
    blocks = []
    for members in group_runs(runs):
        counts = [count for _, count in found_out]
        rows = [_row(run, short[run.name], names, counted, counts) for run in members]
        finished = [run for run in members if run.finished]
        if len(finished) > 1:
            # What the row leaves empty says nothing of several seeds together.
            name = f"mean of {len(finished)}\n± deviation"
            who = [name, finished[0].sums, *[""] * (2 if names else 1)]
            cells = _cells([measure(run) for run in finished])
            rows.append((who, ["", "", *("" for _ in counts), *cells], True))
        blocks.append(rows)
    flags = ["other flags"] if names else []
    measured = [heading.format(counted) for heading, _ in MEASURED]
    counted_out = ["rounds", "aban-\ndoned", *(heading for heading, _ in found_out)]
    return Rows(["run", "sums", *flags, "seed"], [*counted_out, *measured], blocks)


def _row(
    run: PastRun,
    name: str,
    names: Sequence[str],
    counted: int,
    counts: Sequence[Callable[[Line], int]],
) -> tuple[Sequence[str], Sequence[str], bool]:
    flags = [run.differing(names)] if names else []
    who = [name, run.sums, *flags, str(run.flags.get("seed", NOTHING))]
    cells = _cells([measure(run)])
    if 0 < (count := len(last_accuracies(run))) < counted:
        cells[1] += f" ({count})"  # fewer than the heading says
    abandoned = len(run.lines) - len(run.completed)
    found_out = [str(sum(map(count, run.lines))) for count in counts]
    return who, [f"{len(run.lines)} of {run.planned}", str(abandoned), *found_out, *cells], False


def make_tables(rows: Rows, width: int) -> list[Table]:
    """Return one table, or two that number the runs where one would be too wide."""
    whole = _table([*rows.names, *rows.numbers], len(rows.names))
    for block in rows.blocks:
        for names, numbers, together in block:
            whole.add_row(*names, *numbers, style="bold" if together else "")
        whole.add_section()
    if Console(width=UNLIMITED).measure(whole).maximum <= width:
        return [whole]
    who, how = _table(["", *rows.names], len(rows.names) + 1), _table(["", *rows.numbers], 1)
    number = 0
    for block in rows.blocks:
        for names, numbers, together in block:
            number += 1
            style = "bold" if together else ""
            who.add_row(str(number), *names, style=style)
            how.add_row(str(number), *numbers, style=style)
        who.add_section()
        how.add_section()
    return [who, how]


def _table(headings: Sequence[str], left: int) -> Table:
    """Return an empty table; all columns but the first `left` hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place, heading in enumerate(headings):
        widest = WIDEST_FLAGS if heading == "other flags" else None
        table.add_column(
            heading,
            max_width=widest,
            justify="left" if place < left else "right",
            no_wrap=place >= left,
            overflow="fold",
        )
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
    for values, (_, digits) in zip(zip(*measured, strict=True), MEASURED, strict=True):
        known = [value for value in values if value is not None]
        spread = f"\n± {stdev(known):,.{digits}f}" if len(known) > 1 else ""
        whole = len(known) == len(values)
        cells.append(f"{mean(known):,.{digits}f}{spread}" if whole else NOTHING)
    return cells


def make_curves(runs: Sequence[PastRun]) -> list[picture.Curve]:
    """Return what is drawn of each run; a group is named by how it sums up and what is special."""
    names = differences(runs)
    labels = [", ".join(filter(None, [run.sums, run.differing(names)])) for run in runs]
    return [
        picture.Curve(label, run.lines, run.sums) for label, run in zip(labels, runs, strict=True)
    ]


def make_title(runs: Sequence[PastRun]) -> str:
    """Return what all runs have in common, as far as a reader of the picture wants to know it."""
    words = [f"{len(runs)} runs" if len(runs) > 1 else "one run"]
    for name, text in (("dataset", "{}"), ("num_peers", "{} clients"), ("model", "model {}")):
        values = {str(run.flags.get(name)) for run in runs}
        if len(values) == 1 and values != {"None"}:
            words.append(text.format(*values))
    return ", ".join(words)


def default_picture(directories: Sequence[str]) -> Path:
    """Return where the picture goes unless the user says: beside the runs."""
    common = os.path.commonpath([os.path.abspath(name) for name in directories])
    near = os.path.relpath(common)
    return Path(common if near.startswith(os.pardir) else near) / PICTURE


def main(argv: Sequence[str]) -> int:
    """Show the table and write the picture; return the exit code."""
    try:
        given = _parse(argv)
        target = Path(given.picture or default_picture(given.directories))
        found = [run for directory in given.directories for run in find_runs(Path(directory))]
        runs = [read_run(directory) for directory in dict.fromkeys(found)]
    except UsageError as error:
        return _fail(str(error))
    except SystemExit:  # after --help
        return 0
    console = Console(highlight=False)
    if not console.is_terminal:
        # A file is as wide as it has to be: lines that are broken are of no use to a program.
        console = Console(highlight=False, width=UNLIMITED)
    for table in make_tables(make_rows(runs), console.width):
        console.print(table)
    again = ", in place of an older one" if target.exists() else ""
    try:
        picture.write(picture.draw_comparison(make_curves(runs), make_title(runs)), target)
    except OSError as error:
        return _fail(f"cannot write {target} ({error.strerror}): choose another --picture")
    console.print(f"curves in {target}{again}", markup=False, soft_wrap=True)
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
        "--picture", metavar="FILE.png", help=f"default: {PICTURE} in the directory of the runs"
    )
    given = parser.parse_args(list(argv))
    if not given.directories:
        raise UsageError("name at least one run: python -m fl.report runs")
    if given.picture is not None and Path(given.picture).suffix != ".png":
        raise UsageError(f"--picture must end in .png, not {given.picture!r}")
    return given


def _fail(line: str) -> int:
    sys.stderr.write(f"report: {line}\n")
    return EXIT_USAGE
