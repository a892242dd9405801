"""Does --crypto_threads pay?

python -m benchmarks.threads [--threads 2]
"""

import argparse
from dataclasses import dataclass

import numpy as np

from benchmarks.records import Spread, Table, measure, save, show
from benchmarks.scaling import SEED, Dealt, plan_for
from fl.run.threads import block_map
from mphe.scheme.encryptor import Encryptor
from mphe.scheme.onetime import OneTimeCipher
from mphe.scheme.packing import BlockMap

LENGTHS = (199_658, 1_000_000, 10_000_000)
CLIENTS = 8


@dataclass(frozen=True)
class Args:
    """What is measured."""

    threads: int


def measure_one(length: int, blocks: BlockMap) -> tuple[Spread, Spread]:
    """Return the time of one encryption and of taking the keys off its bodies."""
    dealt = Dealt(plan_for(CLIENTS, length))
    values = np.random.default_rng(0).integers(0, 1 << 16, length)
    encryptor = Encryptor(dealt.plan, dealt.key, SEED, blocks)
    encrypt = measure(lambda: encryptor.encrypt(values, dealt.source), 7, 2)
    cipher = OneTimeCipher(dealt.plan, SEED)
    layout, prepared = cipher.layout, cipher.prepare(cipher.gen_key(dealt.source))
    slots = np.full((layout.slots, layout.ring.degree), 40_000)
    bodies = [
        cipher.encrypt_block(
            block, prepared, slots[:, : layout.block_coefficients(block)], dealt.source
        )
        for block in range(layout.blocks)
    ]

    def recover(block: int) -> None:
        cipher.recover_block(block, prepared, bodies[block])

    return encrypt, measure(lambda: list(blocks(recover, range(layout.blocks))), 7, 2)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="compared with one")
    args = Args(**vars(parser.parse_args()))
    table = Table(
        "Threads", ("values", "threads", "encrypt", "gain", "recover the bodies", "gain again")
    )
    for length in LENGTHS:
        one = measure_one(length, block_map(1))
        many = measure_one(length, block_map(args.threads))
        table.add(length, 1, one[0], 1.0, one[1], 1.0)
        gains = [before.median / after.median for before, after in zip(one, many, strict=True)]
        table.add(length, args.threads, many[0], gains[0], many[1], gains[1])
    show(table)
    save("threads", args, [table])


if __name__ == "__main__":
    main()
