"""How well does the documented training learn: with fewer bits, fewer values, fewer clients?

    python -m benchmarks.learning bits compression show [--only ROW] [--seed S] [--reuse]

Each row of a table is the documented command with some flags, over three seeds: four clients and
mnist5k with a rate that falls to 0, since a constant one spikes in single rounds. Results are kept
by command in benchmarks/results/learning.json, so that the tables can be measured in pieces.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from benchmarks.records import RESULTS, Table, circumstances, show
from benchmarks.round import launch

CLIENTS = 4
SEEDS = (0, 1, 2)
LAST = 20
COMMON = (
    "--robust True --resiliency 0.5 --dataset mnist5k --num_iterations 60 --learning_rate 0.3 "
    "--learning_rate_schedule cosine"
)
# A row is its name and what its command has beside the common flags.
PLAIN, HYBRID = ("plain float32", "--aggregation plain"), ("MPHE hybrid, 16 bits", "")
EIGHT = ("8 bits", "--value_bits 8")
QUARTER = ("compression 0.25", "--compression_rate 0.25")
# Later flags replace those of COMMON: three of four contributors, steps as large as noise allows.
PRIVATE = "--resiliency 0.75 --value_bits 20 --clip_norm 1 --learning_rate 2"
TABLES: dict[str, tuple[tuple[str, str], ...]] = {
    "bits": (
        PLAIN,
        ("20 bits", "--value_bits 20"),
        HYBRID,
        ("12 bits", "--value_bits 12"),
        EIGHT,
        ("6 bits", "--value_bits 6"),
        ("4 bits", "--value_bits 4"),
        ("8 bits, rotated", "--value_bits 8 --rotation True"),
        ("6 bits, rotated", "--value_bits 6 --rotation True"),
        ("4 bits, rotated", "--value_bits 4 --rotation True"),
    ),
    "compression": (
        HYBRID,
        ("compression 0.5", "--compression_rate 0.5"),
        QUARTER,
        ("compression 0.1", "--compression_rate 0.1"),
    ),
    "show": (
        PLAIN,
        HYBRID,
        ("MPHE direct", "--encryption direct"),
        ("half drop out", "--simulate_dropout 0.5 --min_contributors 2"),
        QUARTER,
        EIGHT,
        ("privacy, ε = 8", f"{PRIVATE} --dp_epsilon 8"),
        ("privacy, ε = 2", f"{PRIVATE} --dp_epsilon 2"),
    ),
}
Runs = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Args:
    """What is measured."""

    tables: list[str]
    only: str | None
    seed: int | None
    reuse: bool


def command(flags: str, seed: int) -> str:
    """Return the command of a row and seed, as somebody would type it."""
    ranks = CLIENTS + 1
    words = (
        f"mpirun -n {ranks} -H localhost:{ranks} python main.py --num_peers {CLIENTS} "
        f"--server_address localhost:8080 {COMMON} {flags} --seed {seed}"
    )
    return " ".join(words.split())


def measure(flags: str, seed: int) -> dict[str, Any]:
    """Run a row with a seed; return what is kept of it."""
    records = launch(CLIENTS, [*COMMON.split(), *flags.split(), "--seed", str(seed)])
    return {
        "accuracy": [round(record["accuracy"], 4) for record in records],
        "bytes": round(mean(record["upload_bytes_per_client"] for record in records)),
        "seconds": round(median(record["seconds"] for record in records), 3),
        "saturated": sum(record["saturated"] or 0 for record in records),
        "abandoned": sum(record["abandoned"] is not None for record in records),
        "circumstances": circumstances(),
    }


def load_runs() -> Runs:
    """Return what was measured so far, by command."""
    try:
        runs: Runs = json.loads((RESULTS / "learning.json").read_text(encoding="utf-8"))["runs"]
    except FileNotFoundError:
        return {}
    return runs


def keep(runs: Runs) -> None:
    """Write benchmarks/results/learning.json: the circumstances of the last run, and all runs."""
    RESULTS.mkdir(exist_ok=True)
    # One line a run: each holds an accuracy for every round.
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(runs[key])}" for key in sorted(runs))
    head = json.dumps(circumstances(), indent=1).removesuffix("\n}")
    text = f'{head},\n "runs": {{\n{lines}\n }}\n}}\n'
    (RESULTS / "learning.json").write_text(text, encoding="utf-8")


def done(flags: str, runs: Runs) -> list[dict[str, Any]]:
    """Return the runs of a row that were measured."""
    return [runs[words] for seed in SEEDS if (words := command(flags, seed)) in runs]


def cells(name: str, flags: str, runs: Runs) -> tuple[Any, ...]:
    """Return the row of a table; a seed that was not measured is None."""
    found = [runs.get(command(flags, seed)) for seed in SEEDS]
    there = done(flags, runs)
    last = [run["accuracy"][-1] if run is not None else None for run in found]
    if not there:
        return name, None, *last, None, None, None, None, None
    return (
        name,
        f"{mean(run['accuracy'][-1] for run in there):.4f}",
        *(None if accuracy is None else f"{accuracy:.3f}" for accuracy in last),
        f"{mean(median(run['accuracy'][-LAST:]) for run in there):.4f}",
        round(mean(run["bytes"] for run in there)),
        f"{median(run['seconds'] for run in there):.2f}",
        sum(run["saturated"] for run in there),
        " ".join(flags.split()) or "none",
    )


def tabulate(title: str, runs: Runs) -> Table:
    """Return one of the tables from what was measured."""
    columns = (
        *("row", "final accuracy", *(f"seed {seed}" for seed in SEEDS), f"median of last {LAST}"),
        *("bytes a client and round", "seconds a round", "values clipped", "flags"),
    )
    table = Table(title, columns)
    for name, flags in TABLES[title]:
        table.add(*cells(name, flags, runs))
    table.notes.append(f"each row: {command('FLAGS', 0).replace('--seed 0', '--seed SEED')}")
    return table


def wanted(args: Args) -> list[tuple[str, int]]:
    """Return flags and seed of every run that is asked for, each once."""
    rows = [row for title in args.tables for row in TABLES[title]]
    flags = dict.fromkeys(flags for name, flags in rows if args.only in (None, name))
    seeds: Sequence[int] = SEEDS if args.seed is None else (args.seed,)
    return [(words, seed) for seed in seeds for words in flags]


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", choices=sorted(TABLES), help="which to measure")
    parser.add_argument("--only", metavar="ROW", help="this row, by its name")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="this seed")
    parser.add_argument("--reuse", action="store_true", help="do not measure again what is kept")
    args = Args(**vars(parser.parse_args()))
    asked = wanted(args)
    if not asked:
        parser.error(
            f"no row {args.only!r}: {[name for t in args.tables for name, _ in TABLES[t]]}"
        )
    for flags, seed in asked:
        if not (args.reuse and command(flags, seed) in load_runs()):
            run = measure(flags, seed)
            # Read again: another row may have been measured meanwhile.
            keep({**load_runs(), command(flags, seed): run})
    for title in args.tables:
        show(tabulate(title, load_runs()))


if __name__ == "__main__":
    main()
