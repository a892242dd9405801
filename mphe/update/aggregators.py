"""One mean of the means of several groups, which a few hostile contributors cannot choose.

    mean            Σ of the groups' sums, decoded: what one sum of all would give
    median          of the groups' means, coordinate by coordinate
    trimmed_mean:β  their mean without the ⌈β·G⌉ smallest and as many of the largest, likewise
    norm_filter     mean of the groups whose means are at most twice as long as the median one

Each hostile contributor spoils one group at most, so fewer than half of the groups leave the median
among what honest groups say. Of two groups nobody can tell which is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mphe.errors import ParameterError
from mphe.update.quantise import Mean, Spread, Vector

NAMES = ("mean", "median", "trimmed_mean", "norm_filter")
LONGEST = 2.0
"""Norm of a group's mean in units of the median norm, beyond which norm_filter drops it."""

Decode = Callable[[NDArray[Any], int], Mean]
"""(sum, number of its contributors) → their mean."""
Choose = Callable[[NDArray[Any]], NDArray[Any]]
"""Rows of several groups (G, d) → one row (d,)."""


@dataclass(frozen=True)
class GroupAggregator:
    """A way of making one mean of several groups' sums.

        aggregator = GroupAggregator.parse("trimmed_mean:0.2")
        mean = aggregator.combine([(total, contributors), …], decode)

    Attributes:
        name: one of NAMES.
        cut: β, part of the groups that trimmed_mean leaves out at each end; else 0.
    """

    name: str = "mean"
    cut: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no aggregator; ParameterError."""
        if self.name not in NAMES:
            raise ParameterError(f"aggregator {self.name!r}; use one of {', '.join(NAMES)}")
        trims = self.name == "trimmed_mean"
        if trims and not 0 < self.cut < 0.5:
            raise ParameterError(f"trimmed_mean:{self.cut:g}; use a fraction above 0, below 0.5")
        if not trims and self.cut:
            raise ParameterError(f"{self.name} cuts nothing: leave out {self.cut:g}")

    @classmethod
    def parse(cls, text: str) -> GroupAggregator:
        """Read mean, median, trimmed_mean:β or norm_filter; ParameterError when it is none."""
        name, colon, rest = text.partition(":")
        if not colon:
            return cls(name)
        try:
            return cls(name, float(rest))
        except ValueError as error:
            if isinstance(error, ParameterError):
                raise
            raise ParameterError(f"{text!r} needs a number behind the colon") from None

    def __str__(self) -> str:
        """Return what `parse` reads."""
        return f"{self.name}:{self.cut:g}" if self.cut else self.name

    def combine(self, sums: Sequence[tuple[NDArray[Any], int]], decode: Decode) -> Mean:
        """Return one mean of the sums of disjoint groups.

        What contributors report of themselves is combined in the same way, as numbers a
        contributor: a hostile loss or number of samples weighs no more than a hostile update.

        Args:
            sums: of each group its total, whole numbers (payload_length,), and how many
                contributors are in it.
            decode: makes a mean of such a sum, as `UpdateCodec.decode`.

        Raises:
            ParameterError: there is no group.
        """
        if not sums:
            raise ParameterError("an aggregator needs at least one group")
        if self.name == "mean":
            return _decode_together(sums, decode)
        means = [decode(total, contributors) for total, contributors in sums]
        if self.name == "norm_filter":
            kept = within_norm([mean.update for mean in means])
            return _decode_together([sums[place] for place in kept], decode)
        contributors = [count for _, count in sums]
        return _combine(means, contributors, self._choose)

    def _choose(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return one row of many (G, d)."""
        return median(values) if self.name == "median" else trimmed_mean(values, self.cut)


def median(values: NDArray[Any]) -> NDArray[Any]:
    """Return the median of each column: (G, d) to (d,), in the same type."""
    return np.asarray(np.median(values, axis=0)).astype(values.dtype)


def trimmed_mean(values: NDArray[Any], cut: float) -> NDArray[Any]:
    """Return the mean of each column without its ⌈cut·G⌉ smallest and largest values.

    Where that would leave none, one or two in the middle are left: (G, d) to (d,), in the same
    type.
    """
    rows = values.shape[0]
    # repr() of a float is the decimal that was typed; 0.07 · 100 as floats is above 7.
    ends = min(ceil(Fraction(repr(cut)) * rows), (rows - 1) // 2)
    middle = np.sort(values, axis=0)[ends : rows - ends]
    return np.asarray(middle.mean(axis=0, dtype=np.float64)).astype(values.dtype)


def within_norm(updates: Sequence[Vector]) -> list[int]:
    """Return the places of the updates that are at most LONGEST times as long as the median one."""
    norms = np.array([np.linalg.norm(update.astype(np.float64)) for update in updates])
    return np.flatnonzero(norms <= LONGEST * np.median(norms)).tolist()


def _decode_together(sums: Sequence[tuple[NDArray[Any], int]], decode: Decode) -> Mean:
    """Return the mean of all contributors of some groups, each by its own weight."""
    total = sums[0][0].copy()
    for more, _ in sums[1:]:
        total += more
    return decode(total, sum(count for _, count in sums))


def _combine(means: Sequence[Mean], contributors: Sequence[int], choose: Choose) -> Mean:
    """Return what `choose` makes of the means, and of everything that is told beside them."""
    return Mean(
        update=choose(np.stack([mean.update for mean in means])),
        clipped=_count([mean.clipped for mean in means], contributors, choose) or 0,
        loss=_number([mean.loss for mean in means], choose),
        accuracy=_number([mean.accuracy for mean in means], choose),
        samples=_count([mean.samples for mean in means], contributors, choose),
        spread=_spread([mean.spread for mean in means], choose),
    )


def _number(told: Sequence[float | None], choose: Choose) -> float | None:
    """Return what is chosen of numbers; None where a group tells none."""
    known = [value for value in told if value is not None]
    if len(known) < len(told):
        return None
    return float(choose(np.array(known, np.float64)[:, np.newaxis])[0])


def _count(told: Sequence[int | None], contributors: Sequence[int], choose: Choose) -> int | None:
    """Return the count of all contributors from what is chosen of the counts of one."""
    pairs = zip(told, contributors, strict=True)
    one = _number([None if count is None else count / size for count, size in pairs], choose)
    return None if one is None else round(one * sum(contributors))


def _spread(told: Sequence[Spread | None], choose: Choose) -> Spread | None:
    """Return what decides the next range; None where a group tells nothing."""
    rows = [astuple(spread) for spread in told if spread is not None]
    return Spread(*choose(np.array(rows)).tolist()) if len(rows) == len(told) else None
