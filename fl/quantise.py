"""Updates to small non-negative integers and back (docs/protocol.md, A round).

    q = floor((v + R)/step + U[0, 1)),   step = 2R / (2^bits - 1),   mean = (step·Σq - |U|·R)/Σw

Stochastic rounding keeps the mean unbiased. The range R is public and the same for all clients:
the server sends it with the model and adapts it to the aggregate that it saw. Behind the update
lie a few counts (clipped values, loss, accuracy, samples, weight) as digits, so that only their
sums are seen.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.signedinteger[Any]]
Vector = NDArray[np.float32]

COUNT_BITS = 32
LOSS_UNIT = 1e-3
ACCURACY_UNIT = 1e-4
WEIGHT_UNIT = 2.0**-10
MAX_WEIGHT = 8.0
NUM_COUNTS = 5
MIN_RANGE = 1e-6
HEADROOM = 4.0
TOLERATED_SATURATION = 1e-4
PIECE = 1 << 16


def count_digits(bits: int) -> int:
    """Return the slots that one count of 32 bits takes."""
    return -(-COUNT_BITS // bits)


def payload_length(size: int, bits: int) -> int:
    """Return the values of a contribution: the update and its counts."""
    return size + NUM_COUNTS * count_digits(bits)


@dataclass(frozen=True)
class Figures:
    """What one client reports under encryption, so that only sums are seen.

    Attributes:
        loss: mean training loss of its batches.
        accuracy: on its batches, 0..1; NaN where there are no classes, reported as 0.
        samples: training samples that it has.
        weight: of its update in the sum, at most MAX_WEIGHT, a multiple of WEIGHT_UNIT.
    """

    loss: float
    accuracy: float = 0.0
    samples: int = 0
    weight: float = 1.0


@dataclass(frozen=True)
class Mean:
    """What the sum of some contributions says.

    Attributes:
        update: mean update, float32 (size,).
        saturated: values clipped to the range, over all contributors.
        loss: mean training loss; None where nobody reports it.
        accuracy: mean training accuracy; None where nobody reports it.
        samples: of all contributors together; None where nobody reports them.
    """

    update: Vector
    saturated: int
    loss: float | None
    accuracy: float | None = None
    samples: int | None = None


def sample_weight(samples: int, reference: float) -> float:
    """Return a client's weight: its samples in units of `reference`; 1 while that is unknown."""
    if reference <= 0:
        return 1.0
    units = round(samples / reference / WEIGHT_UNIT)
    return min(max(units, 1) * WEIGHT_UNIT, MAX_WEIGHT)


def quantise(
    update: NDArray[Any], reach: float, bits: int, figures: Figures, rng: np.random.Generator
) -> Integers:
    """Return the integers of an update and its counts, int32 (payload_length,).

    Args:
        update: floats (size,), finite, already multiplied by its weight.
        reach: R, values beyond ±R are clipped and counted.
        bits: value_bits.
        figures: of this client.
        rng: of the stochastic rounding.
    """
    largest = (1 << bits) - 1
    values = np.empty(payload_length(update.size, bits), np.int32)
    saturated = 0
    # In pieces: the doubles of a whole vector would take several times its memory.
    for start in range(0, update.size, PIECE):
        piece = update[start : start + PIECE]
        scaled = (piece.astype(np.float64) + reach) * (largest / (2 * reach))
        saturated += int(np.count_nonzero((scaled < 0) | (scaled > largest)))
        scaled += rng.random(piece.size)
        np.floor(scaled, out=scaled)
        values[start : start + piece.size] = np.clip(scaled, 0, largest, out=scaled)
    counts = (
        saturated,
        _units(figures.loss, LOSS_UNIT),
        _units(figures.accuracy, ACCURACY_UNIT),
        min(figures.samples, (1 << COUNT_BITS) - 1),
        _units(figures.weight, WEIGHT_UNIT),
    )
    digits = [digit for count in counts for digit in _digits(count, bits)]
    values[update.size :] = digits
    return values


def dequantise(total: Integers, contributors: int, reach: float, bits: int) -> Mean:
    """Return the mean of the updates whose integers were summed, by their weights."""
    digits = count_digits(bits)
    size = total.size - NUM_COUNTS * digits
    saturated, losses, accuracies, samples, weights = (
        _number(total[size + position * digits :][:digits], bits) for position in range(NUM_COUNTS)
    )
    step = 2 * reach / ((1 << bits) - 1)
    # A contributor that lies about its weight must not make everybody divide by zero.
    weight = max(weights, 1) * WEIGHT_UNIT
    update = total[:size] * step
    update -= contributors * reach
    update /= weight
    return Mean(
        update.astype(np.float32),
        saturated,
        losses * LOSS_UNIT / contributors,
        accuracies * ACCURACY_UNIT / contributors,
        samples,
    )


def next_reach(reach: float, mean: Mean, contributors: int, limit: float) -> float:
    """Return the range of the next round, from the aggregate of this one.

    Twice as wide when too many values left it; else down to a few times the largest mean, at
    most by half a round, since single updates exceed the mean.
    """
    if mean.saturated > TOLERATED_SATURATION * mean.update.size * contributors:
        return min(2 * reach, limit)
    wanted = HEADROOM * float(np.abs(mean.update).max(initial=0.0))
    return min(max(wanted, reach / 2, MIN_RANGE), limit)


def _units(value: float, unit: float) -> int:
    """Return a count of units for a value; 0 for NaN and below 0, the largest beyond it."""
    return round(min(value / unit, (1 << COUNT_BITS) - 1)) if value > 0 else 0


def _digits(count: int, bits: int) -> list[int]:
    """Return a count's digits in base 2^bits, lowest first; only sums of digits are ever seen."""
    return [count >> (bits * i) & ((1 << bits) - 1) for i in range(count_digits(bits))]


def _number(digits: Integers, bits: int) -> int:
    return sum(int(digit) << (bits * i) for i, digit in enumerate(digits))
