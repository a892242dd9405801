"""Draws docs/images/*.png from benchmarks/results/*.json.

python -m benchmarks.plots
"""

from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.learning import SEEDS, TABLES, done
from benchmarks.records import load, text
from fl.metrics import STAGES

IMAGES = Path(__file__).parents[1] / "docs" / "images"
OURS, OTHERS = "#1b6ca8", "#b8b8b8"
STAGE_COLOURS = ("#cfd8dc", "#d1495b", "#90a4ae", "#edae49", "#00798c", "#003d5b", "#eceff1")


def rows(record: dict[str, Any], title: str) -> list[dict[str, Any]]:
    """Return the rows of a table."""
    found: list[dict[str, Any]] = record["tables"][title]["rows"]
    return found


def finish(axes: Axes, name: str, record: dict[str, Any]) -> None:
    """Say where the numbers come from, and write the file."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure = axes.figure
    source = f"{record['command']} · {record['processor']} · NumPy {record['versions']['numpy']}"
    figure.text(0.01, 0.01, source, fontsize=7, color="#666666")
    figure.tight_layout(rect=(0, 0.03, 1, 1))  # type: ignore[union-attr]
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / f"{name}.png", dpi=130)  # type: ignore[union-attr]
    pyplot.close(figure)  # type: ignore[arg-type]


def bytes_by_system() -> None:
    """Draw the bytes of one uploaded value, and the time of one encryption."""
    record = load("peers")
    found = [row for row in rows(record, "Peers") if row["bytes a value"] is not None]
    found.sort(key=lambda row: float(row["bytes a value"]), reverse=True)
    names = [row["system"] for row in found]
    _, axes = pyplot.subplots(figsize=(7.5, 3.6))
    values = [row["bytes a value"] for row in found]
    colours = [OURS if "this project" in name else OTHERS for name in names]
    bars = axes.barh(names, values, color=colours)
    labels = [
        f"{row['bytes a value']:.1f}   ({text(1e3 * row['encrypt']['median'])} ms)" for row in found
    ]
    axes.bar_label(bars, labels, padding=4, fontsize=9)
    axes.set_xlim(0, 1.3 * max(values))
    axes.set_xlabel("bytes uploaded for one value (time to encrypt 199,658 values)")
    finish(axes, "bytes", record)


def times_by_length() -> None:
    """Draw a client's, a decryptor's and the server's time against the vector's length."""
    record = load("scaling")
    found = rows(record, "Vector length, n = 8")
    _, axes = pyplot.subplots(figsize=(7.5, 4.2))
    lines = (
        ("client: encrypt", "client encrypts", "o-", OURS),
        ("server: add one", "server adds one", "^-", "#edae49"),
        ("recover", "server recovers the sum", "v-", "#d1495b"),
        ("decryptor: share", "decryptor answers", "s-", "#003d5b"),
    )
    for column, label, style, colour in lines:
        middle = [1e3 * row[column]["median"] for row in found]
        axes.plot([row["values"] for row in found], middle, style, color=colour, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("values in an update")
    axes.set_ylabel("milliseconds, one thread")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    finish(axes, "length", record)


def round_breakdown() -> None:
    """Draw where the seconds of a training round go, encrypted beside plain."""
    record = load("round")
    found = rows(record, "Training rounds")
    _, axes = pyplot.subplots(figsize=(7.5, 3.8))
    names = [f"n = {row['clients']}, {row['aggregation']}" for row in found][::-1]
    left = [0.0] * len(found)
    for stage, colour in zip(STAGES, STAGE_COLOURS, strict=True):
        widths = [row[stage]["median"] for row in found][::-1]
        axes.barh(names, widths, left=left, color=colour, label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for index, row in enumerate(found[::-1]):
        if row["aggregation"] != "plain":
            axes.text(left[index], index, f"  {row['times plain']:.2f} × plain", va="center")
    axes.set_xlim(0, 1.25 * max(left))
    axes.set_xlabel("seconds of a training round, medians of the stages")
    axes.legend(ncols=7, frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.45, 1))
    finish(axes, "round", record)


def learning() -> None:
    """Draw accuracy against rounds, and against the bytes of an update, means over the seeds."""
    record = load("learning") | {"command": "python -m benchmarks.learning bits compression show"}
    _, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.2))
    colours = iter(("#7f7f7f", OURS, "#003d5b", "#d1495b", "#edae49", "#00798c", "#8e6c8a"))
    for name, flags in TABLES["show"]:
        found = done(flags, record["runs"])
        if len(found) < len(SEEDS):
            continue
        colour = next(colours, OTHERS)
        curve = [mean(values) for values in zip(*(run["accuracy"] for run in found), strict=True)]
        left.plot(range(1, len(curve) + 1), curve, color=colour, label=name)
    left.set_xlabel("round")
    left.set_ylabel("accuracy on the test set")
    left.grid(alpha=0.3)
    left.legend(frameon=False, fontsize=8, loc="lower right")
    rows = dict.fromkeys(row for table in ("show", "bits", "compression") for row in TABLES[table])
    for name, flags in rows:
        found = done(flags, record["runs"])
        if len(found) < len(SEEDS):
            continue
        kilobytes = mean(run["bytes"] for run in found) / 1000
        ends = [run["accuracy"][-1] for run in found]
        colour = "#7f7f7f" if "plain" in name else OURS
        right.plot([kilobytes] * len(ends), ends, ".", color=colour, alpha=0.35)
        right.plot(kilobytes, mean(ends), "o", color=colour)
        label = name.removeprefix("MPHE ")
        right.annotate(label, (kilobytes, mean(ends)), fontsize=7, rotation=45, alpha=0.9)
    right.set_xscale("log")
    ticks = [100, 200, 300, 500, 800, 1400]
    right.set_xticks(ticks, map(str, ticks))
    right.minorticks_off()
    right.set_xlim(70, 2000)
    right.set_xlabel("kilobytes a client and round")
    right.set_ylabel(f"accuracy after {len(curve)} rounds")
    right.grid(alpha=0.3)
    finish(right, "learning", record)


def main() -> None:
    """Draw all figures."""
    learning()
    bytes_by_system()
    times_by_length()
    round_breakdown()


if __name__ == "__main__":
    main()
