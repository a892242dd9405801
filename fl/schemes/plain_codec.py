"""What `--aggregation plain` sends: updates in clear, with their counts behind them."""

from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mphe import ParameterError
from mphe.update import (
    FLOAT_ROUNDING,
    NO_COUNTS,
    Compression,
    Counts,
    Mean,
    PublicRange,
    Vector,
    clip,
    implausible_mean,
    implausible_weight,
)

_NUM_COUNTS = 4


class PlainCodec:
    """Updates as they are, in float32, with their counts behind them; sums decode to means."""

    def __init__(
        self,
        length: int,
        clip_norm: float,
        *,
        compression_rate: float = 1.0,
        weighted: bool = False,
    ) -> None:
        self._length = length
        self._weighted = weighted
        self._clip_norm = clip_norm
        self._compression = Compression(length, compression_rate)

    @property
    def payload_length(self) -> int:
        """Values of one contribution: what is sent of the update, and its counts."""
        return self._compression.length + _NUM_COUNTS

    def first_public(self) -> PublicRange:
        """Return a range that nothing is clipped to, since models go out with one."""
        return PublicRange(self._clip_norm)

    def next_public(self, public: PublicRange, mean: Mean) -> PublicRange:
        """Return the same range."""
        return public

    def encode(
        self,
        update: NDArray[Any],
        public: PublicRange,
        *,
        seed: int,
        index: int,
        round: int,
        counts: Counts = NO_COUNTS,
    ) -> NDArray[Any]:
        """Return a weighted update and its counts, float32 (payload_length,)."""
        values = clip(self._compression.apply(update, seed, round), self._clip_norm)
        accuracy = counts.accuracy if isfinite(counts.accuracy) else 0.0
        behind = [counts.loss, accuracy, counts.samples, counts.weight]
        weighted = values * np.float32(counts.weight)
        return np.concatenate((weighted, np.array(behind, np.float32)))

    def unsent(self, update: Vector, *, seed: int, round: int) -> Vector | None:
        """Return what of an update `encode` does not send; None when it sends all."""
        return self._compression.left(update, seed, round)

    def decode(
        self,
        total: NDArray[Any],
        contributors: int,
        public: PublicRange,
        *,
        seed: int | None = None,
        round: int | None = None,
    ) -> Mean:
        """Return the mean of the updates that were summed; by their weights, if weighted."""
        losses, accuracies, samples, _ = total[-_NUM_COUNTS:].tolist()
        weight = self._weight(total, contributors)
        update = (total[:-_NUM_COUNTS] / (weight or 1)).astype(np.float32)
        if update.size < self._length:
            if seed is None or round is None:
                raise ParameterError("compressed updates need seed and round to decode")
            update = self._compression.undo(update, seed, round)
        return Mean(update, 0, losses / contributors, accuracies / contributors, int(samples + 0.5))

    def implausible(self, total: NDArray[Any], contributors: int, public: PublicRange) -> str:
        """Return why honest updates cannot add up to this, in one line; "" where they may."""
        weight = self._weight(total, contributors)
        if wrong := implausible_weight(weight, contributors):
            return wrong
        norm = float(np.linalg.norm(total[:-_NUM_COUNTS])) / weight
        return implausible_mean(norm, self._clip_norm * (1 + FLOAT_ROUNDING))

    def _weight(self, total: NDArray[Any], contributors: int) -> float:
        return float(total[-1]) if self._weighted else float(contributors)
