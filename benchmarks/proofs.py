"""What do the proofs of clients cost, at the client, at the server and in bytes?

    python -m benchmarks.proofs [--length 199658] [--num_peers 8] [--threshold 4] [--rounds 21]

Rounds without and with `verify_clients` take turns in one process and one thread; medians over the
contributions, and the quotient of both.
"""

import argparse
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.budgets import STEPS, one_round
from benchmarks.federation import Federation
from benchmarks.records import Spread, Table, save, show
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import make_plan

WARM_UP = 2


@dataclass(frozen=True)
class Args:
    """What is measured."""

    length: int
    num_peers: int
    threshold: int
    rounds: int


def run(args: Args, encryption: str) -> Table:
    """Measure one mode."""
    plain = SessionParameters(
        args.num_peers, args.threshold, args.length, args.rounds + WARM_UP, encryption=encryption
    )
    plans = [make_plan(plain), make_plan(replace(plain, verify_clients=True))]
    federations = [Federation(plan) for plan in plans]
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 1 << plain.value_bits, args.length) for _ in range(args.num_peers)]
    took: list[dict[str, list[float]]] = [{step: [] for step in STEPS} for _ in plans]
    for number in range(args.rounds + WARM_UP):
        if number == WARM_UP:
            took = [{step: [] for step in STEPS} for _ in plans]
        for federation, seconds in zip(federations, took, strict=True):
            one_round(federation, values, seconds)
    table = Table(f"Proofs, {encryption}", ("step", "without", "with", "quotient"))
    for step in ("encrypt", "aggregate", "decryption share", "recover"):
        without, proving = (Spread.of(seconds[step]) for seconds in took)
        table.add(step, without, proving, proving.median / without.median)
    sizes = [plan.upload_bytes for plan in plans]
    table.add("bytes of a contribution", *sizes, sizes[1] / sizes[0])
    return table


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=199658)
    parser.add_argument("--num_peers", type=int, default=8)
    parser.add_argument("--threshold", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=21)
    args = Args(**vars(parser.parse_args()))
    tables = [run(args, mode) for mode in ("hybrid", "direct")]
    for table in tables:
        show(table)
    save("proofs", args, tables)


if __name__ == "__main__":
    main()
