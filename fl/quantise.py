"""Updates to small non-negative integers and back (docs/protocol.md, A round).

    q = floor(v/step + h + U[0, 1)),   h = 2^(bits-1) - 1,   step = R/h
    mean = step·(Σq - |U|·h)/Σw

Stochastic rounding keeps the mean unbiased. Zero is a level: most values of an update are much
smaller than a step, and rounding adds variance |v|·step to them, where a grid with zero between
two levels would add step²/4. The range R is public and the same for all clients: the server sends
it with the model and adapts it to the aggregate that it saw. Behind the update
lie a few counts (clipped values, loss, accuracy, samples, weight) as digits, so that only their
sums are seen.
"""

import math
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
NARROWING, WIDENING = 0.8, 1.5
TOLERATED_SATURATION = 1e-4
# Steps of this part of the values' root mean square add next to nothing to their variance.
FINE_STEP = 0.125
FIRST_REACH = 8.0
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
    half = half_levels(bits)
    largest = 2 * half
    values = np.empty(payload_length(update.size, bits), np.int32)
    saturated = 0
    # In pieces: the doubles of a whole vector would take several times its memory.
    for start in range(0, update.size, PIECE):
        piece = update[start : start + PIECE]
        scaled = piece.astype(np.float64) * (half / reach) + half
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
    half = half_levels(bits)
    # A contributor that lies about its weight must not make everybody divide by zero.
    weight = max(weights, 1) * WEIGHT_UNIT
    update = total[:size].astype(np.float64)
    update -= contributors * half
    update *= reach / half / weight
    return Mean(
        update.astype(np.float32),
        saturated,
        losses * LOSS_UNIT / contributors,
        accuracies * ACCURACY_UNIT / contributors,
        samples,
    )


def first_reach(clip_norm: float, size: int, bits: int) -> float:
    """Return the range of the first round, from what is known before any sum.

    With few bits a range of the whole norm would drown a long update in rounding noise; one that
    is too narrow is widened soon.
    """
    root_mean_square = clip_norm / math.sqrt(size)
    return min(clip_norm, max(FIRST_REACH, FINE_STEP * half_levels(bits)) * root_mean_square)


def next_reach(reach: float, mean: Mean, contributors: int, limit: float, bits: int) -> float:
    """Return the range of the next round, from the aggregate of this one.

    Wider when too many values left it. As long as steps are fine it follows the largest mean,
    with headroom since single updates exceed the mean. Where they are not, the largest mean is
    partly rounding noise: it narrows until the first values leave it. It never shrinks by more
    than half.
    """
    if mean.saturated > TOLERATED_SATURATION * mean.update.size * contributors:
        return min(WIDENING * reach, limit)
    update = mean.update.astype(np.float64)
    fine = FINE_STEP * half_levels(bits) * math.sqrt(float(np.mean(update * update)))
    wanted = HEADROOM * float(np.abs(update).max(initial=0.0))
    if reach > fine:
        wanted = max(fine, min(wanted, NARROWING * reach)) if not mean.saturated else reach
    else:
        wanted = min(wanted, fine)
    return min(max(wanted, reach / 2, MIN_RANGE), limit)


def half_levels(bits: int) -> int:
    """Return the levels on either side of zero."""
    return (1 << (bits - 1)) - 1


def _units(value: float, unit: float) -> int:
    """Return a count of units for a value; 0 for NaN and below 0, the largest beyond it."""
    return round(min(value / unit, (1 << COUNT_BITS) - 1)) if value > 0 else 0


def _digits(count: int, bits: int) -> list[int]:
    """Return a count's digits in base 2^bits, lowest first; only sums of digits are ever seen."""
    return [count >> (bits * i) & ((1 << bits) - 1) for i in range(count_digits(bits))]


def _number(digits: Integers, bits: int) -> int:
    return sum(int(digit) << (bits * i) for i, digit in enumerate(digits))
