"""Where does the time of one encryption and of one recovery go?

python -m benchmarks.profile [--length 199658]
"""

import argparse
import cProfile
import pstats
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.records import Table, save, show
from benchmarks.scaling import SEED, Dealt, plan_for
from mphe.scheme.encryptor import Encryptor
from mphe.scheme.onetime import OneTimeCipher

CLIENTS = 8
RUNS = 500


@dataclass(frozen=True)
class Args:
    """What is measured."""

    length: int


def profiled(title: str, call: Callable[[], object]) -> Table:
    """Return the share of the time inside each function, callees left out."""
    call()
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(RUNS):
        call()
    profiler.disable()
    stats = pstats.Stats(profiler).get_stats_profile()
    table = Table(title, ("function", "% of the time", "calls a run"))
    functions = sorted(stats.func_profiles.items(), key=lambda item: -item[1].tottime)
    for name, found in functions[:12]:
        calls = int(str(found.ncalls).split("/")[0]) / RUNS
        table.add(name, 100 * found.tottime / stats.total_tt, calls)
    return table


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=199_658, help="values of an update")
    args = Args(**vars(parser.parse_args()))
    dealt = Dealt(plan_for(CLIENTS, args.length))
    values = np.random.default_rng(0).integers(0, 1 << 16, args.length)
    encryptor = Encryptor(dealt.plan, dealt.key, SEED)
    cipher = OneTimeCipher(dealt.plan, SEED)
    layout, prepared = cipher.layout, cipher.prepare(cipher.gen_key(dealt.source))
    slots = np.full((layout.slots, layout.ring.degree), 40_000)
    bodies = [
        cipher.encrypt_block(
            block, prepared, slots[:, : layout.block_coefficients(block)], dealt.source
        )
        for block in range(layout.blocks)
    ]
    tables = [
        profiled("Encrypt", lambda: encryptor.encrypt(values, dealt.source)),
        profiled(
            "Recover",
            lambda: [cipher.recover_block(i, prepared, body) for i, body in enumerate(bodies)],
        ),
    ]
    for table in tables:
        show(table)
    save("profile", args, tables)


if __name__ == "__main__":
    main()
