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
OURS, OTHERS, CLEAR = "#1b6ca8", "#b8b8b8", "#6b6b6b"
# Okabe and Ito's colours, which most colour-blind people tell apart; the stages lie side by side.
STAGE_COLOURS = ("#56b4e9", "#d55e00", "#f0e442", "#cc79a7", "#009e73", "#000000", "#bbbbbb")
# What a system of benchmarks.peers is called in a picture: with its bits, since they set its bytes.
SYSTEMS = {
    "this project, hybrid": "MPHE hybrid, 16 bits",
    "this project, direct": "MPHE direct, 16 bits",
    "one AES-CTR mask": "one AES-CTR mask, 16 bits in int32",
    "plain float32": "plain, 32 bits (float32)",
    "Flower SecAgg+": "Flower SecAgg+, 22 bits in int64",
    "OpenFHE threshold BFV": "OpenFHE threshold BFV, 16 bits",
    "TenSEAL CKKS": "TenSEAL CKKS",
}
FASTEST = 0.02  # milliseconds, where the axis begins
PLAIN_16 = {"system": "plain, 16 bits", "bytes a value": 2.0, "encrypt": None}  # arithmetic


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
    """Draw the bytes of one uploaded value and, in a panel of its own, the time to encrypt."""
    record = load("peers")
    found = [row for row in rows(record, "Peers") if row["bytes a value"] is not None]
    found = sorted([*found, PLAIN_16], key=lambda row: -float(row["bytes a value"]))
    names = [SYSTEMS.get(row["system"], row["system"]) for row in found]
    colours = [_colour_of(name) for name in names]
    _, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    sizes = [row["bytes a value"] for row in found]
    left.bar_label(left.barh(names, sizes, color=colours), fmt="%.1f", padding=4, fontsize=9)
    left.set_xlim(0, 1.15 * max(sizes))
    left.set_xlabel("bytes uploaded for one value")
    right.barh(names, [_milliseconds(row) for row in found], color=colours)
    for place, row in enumerate(found):
        label = text(_milliseconds(row)) if row["encrypt"] else "nothing to encrypt"
        right.text(1.15 * _milliseconds(row), place, label, va="center", fontsize=9)
    right.set_xscale("log")
    right.set_xlim(FASTEST, 6 * max(map(_milliseconds, found)))
    right.set_xlabel("milliseconds to encrypt 199,658 values (log)")
    left.spines["top"].set_visible(False)
    left.spines["right"].set_visible(False)
    finish(right, "bytes", record)


def _milliseconds(row: dict[str, Any]) -> float:
    """Return the median time of one encryption; the left end of the axis where there is none."""
    return 1e3 * float(row["encrypt"]["median"]) if row["encrypt"] else FASTEST


def _colour_of(name: str) -> str:
    """Return the colour of a system: this project's, in the clear, or another's."""
    return OURS if name.startswith("MPHE") else CLEAR if name.startswith("plain") else OTHERS


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


# Title of each panel, with the rows it shows and their lines. Hybrid and direct add the same
# integers, so the one is dashes upon the other.
PANELS: tuple[tuple[str, dict[str, dict[str, Any]]], ...] = (
    (
        "encrypted or not",
        {
            "plain float32": {"color": "black", "linewidth": 1.2},
            "MPHE hybrid, 16 bits": {"color": OURS, "linewidth": 3.5, "alpha": 0.55},
            "MPHE direct": {"color": "#d55e00", "linewidth": 1.2, "linestyle": (0, (3, 3))},
        },
    ),
    (
        "fewer bits, values, clients",
        {
            "plain float32": {"color": "black", "linewidth": 1.2},
            "8 bits": {"color": OURS},
            "compression 0.25": {"color": "#e69f00"},
            "half drop out": {"color": "#d55e00", "linestyle": "--"},
        },
    ),
    (
        "differential privacy",
        {
            "plain float32": {"color": "black", "linewidth": 1.2},
            "privacy, ε = 8": {"color": "#009e73"},
            "privacy, ε = 2": {"color": "#cc79a7"},
        },
    ),
)


def learning() -> None:
    """Draw accuracy against rounds, and against the bytes of an update, means over the seeds."""
    record = load("learning") | {"command": "python -m benchmarks.learning bits compression show"}
    _, grid = pyplot.subplots(2, 2, figsize=(10, 8))
    *panels, last = grid.flat
    for axes, (title, lines) in zip(panels, PANELS, strict=True):
        accuracy_by_round(axes, lines, record["runs"])
        axes.set_title(title, fontsize=10)
    accuracy_by_bytes(last, record["runs"])
    last.set_title("accuracy by bytes; bars reach from the worst seed to the best", fontsize=10)
    for axes in panels:
        axes.spines["top"].set_visible(False)
        axes.spines["right"].set_visible(False)
    finish(last, "learning", record)


def accuracy_by_round(axes: Axes, lines: dict[str, dict[str, Any]], runs: dict[str, Any]) -> None:
    """Draw the curves of some rows."""
    flags = dict(TABLES["show"])
    for name, style in lines.items():
        found = done(flags[name], runs)
        if len(found) < len(SEEDS):
            continue
        curve = [mean(values) for values in zip(*(run["accuracy"] for run in found), strict=True)]
        axes.plot(range(1, len(curve) + 1), curve, label=name, **style)
    axes.set_ylim(0, 1)
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy on the test set")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9, loc="lower right")


# Label, style, colour and rows of each line; a row's mark is what tells it from the others.
Series = tuple[str, str, str, list[tuple[str, str]]]


def series() -> list[Series]:
    """Return the lines of accuracy against bytes, as (mark, flags) of each point."""

    def marks(table: str, flag: str) -> list[tuple[str, str]]:
        found = [flags for _, flags in TABLES[table] if flags.startswith(flag) or not flags]
        return [(flags.removeprefix(flag).strip(), flags) for flags in found if "True" not in flags]

    bits = [(mark or "16", flags) for mark, flags in marks("bits", "--value_bits")]
    # All values, 16 bits: that point has its mark among the bits.
    rates = marks("compression", "--compression_rate")
    shown = dict(TABLES["show"])
    return [
        ("hybrid, 4 to 20 bits a value", "o-", OURS, bits),
        ("hybrid, 16 bits, part of the values", "s-", "#e69f00", rates),
        ("direct, 16 bits", "D", "#d55e00", [("", shown["MPHE direct"])]),
        (
            "hybrid, 20 bits, privacy with ε",
            "^",
            "#009e73",
            [
                (name.removeprefix("privacy, ε = "), flags)
                for name, flags in shown.items()
                if name.startswith("privacy")
            ],
        ),
        ("plain float32", "X", "black", [("", shown["plain float32"])]),
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
        axes.errorbar(
            sizes, middle, (low, high), fmt=style, color=colour, label=label, elinewidth=0.7
        )
        # At the ends of the bars, where no line and no other mark is.
        below = style == "s-"
        for x, (_, ends, mark) in zip(sizes, points, strict=True):
            axes.annotate(
                mark,
                (x, min(ends) if below else max(ends)),
                (0, -4 if below else 3),
                textcoords="offset points",
                ha="center",
                va="top" if below else "bottom",
                fontsize=9,
                color=colour,
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
