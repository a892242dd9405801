"""How long do the single operations take, in each ring, and how far are they from the floor?

python -m benchmarks.primitives [--repeats 51]
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log2

import numpy as np

from benchmarks.records import Spread, Table, measure, save, show
from mphe.arithmetic.ring import Ring
from mphe.arithmetic.rings import RINGS, RingParameters
from mphe.arithmetic.sampling import (
    RandomSource,
    add_smudging,
    error,
    one_time,
    ternary,
    uniform,
)
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import SlotLayout, make_plan
from mphe.scheme import packing

MEBI = 1 << 20
SMUDGING = 2.0**60


@dataclass(frozen=True)
class Args:
    """What is measured."""

    repeats: int


def operations(parameters: RingParameters) -> dict[str, Callable[[], object]]:
    """Return one call for each operation of a ring."""
    ring, source = Ring(parameters), RandomSource.from_system()
    element = uniform(source, ring)
    small = ring.transform(ternary(source, ring.degree))
    wide, narrow = ring.spectrum(element, 32), ring.spectrum(element, 16)
    layout = SlotLayout(parameters, 21, 19, (parameters.bits - 21) // 19, 1)
    layout = replace(layout, length=layout.slots * ring.degree)
    slots = packing.arrange(layout, np.full(layout.length, 40_000))
    encoded = ring.to_bytes(element)
    return {
        "small × element": lambda: ring.multiply_small(small, wide),
        "element × element": lambda: ring.multiply(narrow, narrow),
        "transform of an element, 32-bit digits": lambda: ring.spectrum(element, 32),
        "reduce": lambda: ring.reduce(element.copy()),
        "ternary": lambda: ternary(source, ring.degree),
        "error": lambda: error(source, ring.degree),
        "one-time key": lambda: one_time(source, ring.degree),
        "uniform element": lambda: uniform(source, ring),
        "smudging": lambda: add_smudging(source, element.copy(), SMUDGING),
        "pack": lambda: packing.pack(layout, slots),
        "unpack": lambda: packing.unpack(layout, element),
        "to bytes": lambda: ring.to_bytes(element),
        "from bytes": lambda: ring.from_bytes(encoded, ring.degree),
    }


def rings(repeats: int) -> Table:
    """Measure every operation in every ring."""
    names = tuple(parameters.name for parameters in RINGS)
    table = Table("Operations", ("operation", *names))
    calls = {parameters.name: operations(parameters) for parameters in RINGS}
    for operation in calls[names[0]]:
        table.add(operation, *(measure(calls[name][operation], repeats, 3) for name in names))
    table.notes.append(
        "; ".join(f"{p.name}: N = {p.degree}, log2 q = {p.bits}" for p in RINGS)
        + ". Smudging with σ = 2^60."
    )
    return table


def fft_rate(degree: int, digits: int, repeats: int) -> tuple[Spread, float]:
    """Return the time of NumPy's FFT of an element's digits and its flops a second."""
    values = np.ones((digits, degree // 2), np.complex128)
    spread = measure(lambda: np.fft.fft(values, out=values.copy()), repeats, 3)
    flops = 5 * digits * (degree // 2) * log2(degree // 2)
    return spread, flops / spread.median


def floor(repeats: int) -> Table:
    """Compare one encryption of the CNN with what its bytes and its transforms need."""
    table = Table("Floor", ("what", "time", "rate"))
    block = np.zeros(64 * MEBI, np.uint8)
    copy = measure(block.copy, repeats, 3)
    table.add("copy 64 MiB", copy, f"{2 * block.nbytes / copy.median / 1e9:.1f} GB/s")
    for parameters in RINGS:
        spread, rate = fft_rate(parameters.degree, parameters.limbs, repeats)
        name = f"FFT of {parameters.limbs} × {parameters.degree // 2} complex numbers"
        table.add(name, spread, f"{rate / 1e9:.2f} Gflop/s")
    source = RandomSource.from_system()
    stream = measure(lambda: source.bytes(MEBI), repeats, 3)
    table.add("AES-256-CTR, 1 MiB", stream, f"{MEBI / stream.median / 1e9:.2f} GB/s")
    plan = make_plan(SessionParameters(8, 4, 199_658, 100))
    payload, key = plan.payload, plan.threshold.ring
    if payload is not None:
        per_body, _ = fft_rate(payload.ring.degree, payload.ring.limbs, repeats)
        per_key, _ = fft_rate(key.degree, key.limbs, repeats)
        transforms = payload.blocks * per_body.median + 2 * per_key.median
        table.add("transforms of one encrypted CNN update", Spread.of([transforms]), "")
        moved = plan.upload_bytes + 4 * 199_658
        bytes_only = moved / (2 * block.nbytes / copy.median)
        table.add("its bytes, in and out", Spread.of([bytes_only]), "")
    return table


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=51, help="repeats of each operation")
    args = Args(**vars(parser.parse_args()))
    tables = [rings(args.repeats), floor(args.repeats)]
    for table in tables:
        show(table)
    save("primitives", args, tables)


if __name__ == "__main__":
    main()
