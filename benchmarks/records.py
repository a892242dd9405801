"""What every benchmark prints and writes: tables, and JSON beside what made them."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import rich.box
import rich.console
import rich.table

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "cryptography", "msgpack")


@dataclass(frozen=True)
class Spread:
    """Seconds of some repeats: the median and the quartiles around it."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        """Return the spread of measured seconds."""
        if len(seconds) < 2:
            return cls(seconds[0], seconds[0], seconds[0], len(seconds))
        low, _, high = quantiles(seconds, n=4, method="inclusive")
        return cls(median(seconds), low, high, len(seconds))


def measure(call: Callable[[], object], repeats: int = 7, warm_up: int = 1) -> Spread:
    """Return how long a call takes."""
    seconds = []
    for number in range(warm_up + repeats):
        started = time.perf_counter()
        call()
        if number >= warm_up:
            seconds.append(time.perf_counter() - started)
    return Spread.of(seconds)


@dataclass
class Table:
    """A table with its rows; cells are text, numbers, `Spread`s of seconds or None."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: Any) -> None:
        """Append a row."""
        self.rows.append(cells)


def text(cell: Any) -> str:
    """Return a cell as it is printed."""
    if cell is None:
        return "-"
    if isinstance(cell, Spread):
        return f"{1e3 * cell.median:.3g} ms ({1e3 * cell.low:.3g}-{1e3 * cell.high:.3g})"
    if isinstance(cell, float):
        return f"{cell:.3g}" if abs(cell) < 1e4 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def show(table: Table) -> None:
    """Print a table."""
    # A log has no width of its own, and folded numbers cannot be read.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 180)
    shown = rich.table.Table(*table.columns, title=table.title, box=rich.box.SIMPLE)
    for row in table.rows:
        shown.add_row(*map(text, row))
    console.print(shown)
    for note in table.notes:
        console.print(note, highlight=False)


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def commit() -> str:
    """Return the commit that was measured, with a mark when files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], capture_output=True, text=True, cwd=RESULTS.parent, check=False
        )
        return done.stdout.strip()

    # What the run itself writes is not what it measures.
    changed = git("status", "--porcelain", "--", ":/", ":!/benchmarks/results", ":!/docs")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("-dirty" if changed else "")


def circumstances() -> dict[str, Any]:
    """Return what a number means nothing without."""
    spec = sys.modules["__main__"].__spec__
    name = spec.name if spec else sys.argv[0]
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {
        "command": " ".join(["python -m", name, *sys.argv[1:]]),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "versions": {"python": platform.python_version(), **versions},
        "date": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
    }


def save(name: str, args: Any, tables: Sequence[Table]) -> None:
    """Write benchmarks/results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    record = {
        **circumstances(),
        "args": asdict(args),
        "tables": {table.title: _plain(table) for table in tables},
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _plain(table: Table) -> dict[str, Any]:
    rows = [
        {
            column: asdict(cell) if isinstance(cell, Spread) else cell
            for column, cell in zip(table.columns, row, strict=True)
        }
        for row in table.rows
    ]
    return {"rows": rows, "notes": table.notes}


def load(name: str) -> dict[str, Any]:
    """Return what `save` wrote."""
    record: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return record
