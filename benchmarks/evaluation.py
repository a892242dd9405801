"""Seconds a round with a test set of MNIST's size: evaluated in every round, or beside them.

python -m benchmarks.evaluation [--rounds N] writes benchmarks/results/evaluation.json. The images
are those of mnist5k, repeated: what a network computes does not depend on which digits it sees.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.records import Spread, Table, save
from benchmarks.round import launch
from fl.data.load import load_dataset

CLIENTS, TESTED, TRAINED = 4, 10_000, 20_000
WARM_UP = 2
WAYS = (("within the round", ("--evaluate_every", "1")), ("beside the rounds", ()))


@dataclass(frozen=True)
class Args:
    """What is measured."""

    rounds: int
    repeats: int


def write_digits(path: Path) -> None:
    """Write an .npz with so many real digits as MNIST has to test, and enough to train."""
    data = load_dataset("mnist5k", 0)
    arrays = {}
    for part, count in (("train", TRAINED), ("test", TESTED)):
        x, y = getattr(data, f"{part}_x"), getattr(data, f"{part}_y")
        chosen = np.arange(count) % len(y)
        arrays[f"x_{part}"] = np.rint(x[chosen, ..., 0] * 255).astype(np.uint8)
        arrays[f"y_{part}"] = y[chosen]
    np.savez(path, **arrays)


def measure(path: Path, rounds: int, flags: tuple[str, ...]) -> list[dict[str, Any]]:
    """Run a training; return the lines of its rounds, and of what was evaluated later."""
    words = f"--robust True --resiliency 0.75 --num_iterations {rounds + WARM_UP} --dataset npz:"
    return launch(CLIENTS, [*f"{words}{path}".split(), *flags])


def main() -> None:
    """Measure by turns, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="of each training")
    parser.add_argument("--repeats", type=int, default=3, help="trainings of each way")
    args = Args(**vars(parser.parse_args()))
    seconds: dict[str, list[float]] = {name: [] for name, _ in WAYS}
    evaluated: dict[str, list[float]] = {name: [] for name, _ in WAYS}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "digits.npz"
        write_digits(path)
        for _ in range(args.repeats):
            for name, flags in WAYS:
                lines = measure(path, args.rounds, flags)
                rounds = [line for line in lines if "contributors" in line]
                # The last is evaluated in both ways before it ends.
                seconds[name] += [line["seconds"] for line in rounds[WARM_UP:-1]]
                evaluated[name].append(sum(line["loss"] is not None for line in lines))
    table = Table("Rounds with 10,000 test images", ("evaluation", "round", "rounds evaluated"))
    for name, _ in WAYS:
        table.add(
            name,
            Spread.of(seconds[name]),
            f"{median(evaluated[name]):g} of {args.rounds + WARM_UP}",
        )
    save("evaluation", args, [table])


if __name__ == "__main__":
    main()
