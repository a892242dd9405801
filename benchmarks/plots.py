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
from fl.report.metrics import STAGES

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
    accuracy_by_bytes(right, record["runs"])
    finish(right, "learning", record)


# Label, style, colour and rows of each line; a row's mark is what tells it from the others.
Series = tuple[str, str, str, list[tuple[str, str]]]


def series() -> list[Series]:
    """Return the lines of accuracy against bytes, as (mark, flags) of each point."""

    def marks(table: str, flag: str) -> list[tuple[str, str]]:
        found = [flags for _, flags in TABLES[table] if flags.startswith(flag) or not flags]
        return [(flags.removeprefix(flag).strip(), flags) for flags in found if "True" not in flags]

    bits = [(mark or "16", flags) for mark, flags in marks("bits", "--value_bits")]
    rates = [(mark or "1", flags) for mark, flags in marks("compression", "--compression_rate")]
    shown = dict(TABLES["show"])
    return [
        ("hybrid, 4 to 20 bits a value", "o-", OURS, bits),
        ("hybrid, 16 bits, part of the values", "s-", "#edae49", rates),
        ("direct, 16 bits", "D", "#003d5b", [("", shown["MPHE direct"])]),
        (
            "hybrid, 20 bits, privacy with ε",
            "^",
            "#8e6c8a",
            [
                (name.removeprefix("privacy, ε = "), flags)
                for name, flags in shown.items()
                if name.startswith("privacy")
            ],
        ),
        ("plain float32", "X", "#7f7f7f", [("", shown["plain float32"])]),
    ]


def accuracy_by_bytes(axes: Axes, runs: dict[str, Any]) -> None:
    """Draw what rows with other bytes learn; bars reach from the worst seed to the best."""
    for label, style, colour, rows_of in series():
        measured = [(mark, done(flags, runs)) for mark, flags in rows_of]
        points = [
            (
                mean(run["bytes"] for run in found) / 1000,
                [run["accuracy"][-1] for run in found],
                mark,
            )
            for mark, found in measured
            if len(found) == len(SEEDS)
        ]
        if not points:
            continue
        sizes, middle = [x for x, _, _ in points], [mean(ends) for _, ends, _ in points]
        low = [value - min(ends) for value, (_, ends, _) in zip(middle, points, strict=True)]
        high = [max(ends) - value for value, (_, ends, _) in zip(middle, points, strict=True)]
        spread, offset = (low, high), (4, -11) if style == "s-" else (4, 4)
        axes.errorbar(sizes, middle, spread, fmt=style, color=colour, label=label, elinewidth=0.7)
        for x, y, (_, _, mark) in zip(sizes, middle, points, strict=True):
            axes.annotate(
                mark, (x, y), offset, textcoords="offset points", fontsize=8, color=colour
            )
    axes.set_xscale("log")
    ticks = [100, 200, 300, 500, 800, 1400]
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.set_xlabel("kilobytes a client and round")
    axes.set_ylabel("accuracy after the last round")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="lower left")


def main() -> None:
    """Draw all figures."""
    learning()
    bytes_by_system()
    times_by_length()
    round_breakdown()


if __name__ == "__main__":
    main()
