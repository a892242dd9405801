"""Updates whose sum holds the noise of differential privacy (docs/privacy.md).

Every contributor adds a discrete Gaussian to its integers. With step s, d values, sensitivity C and
h contributors whose noise nobody knows, one unit changes the integers of a sum by at most

    Δ = C/s + sqrt(d),   and each contributor's noise has σ = z·Δ/sqrt(h), at least 3.

So a sum holds noise of z·Δ, whatever range the server sends and whoever drops out. The grid
has room for the range R and 12 deviations: (2^(bits-1) - 1)·s = R + (12·σ + 1)·s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mphe.arithmetic.sampling import RandomSource
from mphe.errors import LocalProtocolError, ParameterError
from mphe.update.codec import PublicRange, UpdateCodec, clip
from mphe.update.noise import DISTANCE, gaussian
from mphe.update.quantise import (
    FINEST_BITS,
    NO_COUNTS,
    Counts,
    Integers,
    Mean,
    dequantise,
    half_levels,
    quantise,
)
from mphe.update.streams import Stream, generator

TAIL = 12.0
"""Deviations of its noise that one contributor's grid has room for."""
MIN_DEVIATION = 3.0
"""Of one contributor's noise: sums of narrower discrete Gaussians are not close enough to one."""
# Doubles are not real numbers: each result is right to 1e-9 of its size or better, and an update
# that was clipped in float32 to 1e-7.
_ROUNDING = 1 + 1e-6
_LARGEST_COORDINATE = 32.0


@dataclass(frozen=True)
class NoiseScale:
    """How much noise the contributors of a sum add together.

    Attributes:
        multiplier: z, deviation of the noise in a sum divided by what one unit changes in it.
        sensitivity: C, most that one unit changes a sum of updates, as an L2 norm.
        honest: h, contributors to every sum whose noise nobody else knows.
    """

    multiplier: float
    sensitivity: float
    honest: int


@dataclass(frozen=True)
class NoiseGrid:
    """The integers of one round.

    Attributes:
        step: value of one integer.
        largest: value of the largest integer, (2^(bits-1) - 1)·step; what dequantising needs.
        deviation: of one contributor's noise, in steps.
    """

    step: float
    largest: float
    deviation: float


def noise_grid(scale: NoiseScale, size: int, bits: int, clip_range: float) -> NoiseGrid:
    """Return the grid for `size` values within ±clip_range; ParameterError for too few bits."""
    half = half_levels(bits)
    share = scale.multiplier * _ROUNDING / sqrt(scale.honest)
    left = half - 1 - TAIL * share * sqrt(size)
    step = (clip_range + TAIL * share * scale.sensitivity) / left if left > 0 else inf
    deviation = share * (scale.sensitivity / step + sqrt(size))
    if left > 0 and deviation < MIN_DEVIATION:
        # A larger step, at which even less noise would do.
        deviation, left = MIN_DEVIATION, half - 1 - TAIL * MIN_DEVIATION
        step = clip_range / left
    if left <= 0:
        raise ParameterError(
            f"the noise for {size} values (multiplier {scale.multiplier:g}) does not fit {bits} "
            "bits"
        )
    return NoiseGrid(step, half * step, deviation)


def start_range(clip_norm: float, size: int) -> float:
    """Return the range of the first round: coordinates of a long vector are small."""
    return clip_norm * min(1.0, _LARGEST_COORDINATE / sqrt(size))


def failure_probability(contributions: int, size: int) -> float:
    """Return a bound on the probability that any noise of a run is not what the proof assumes.

    Noise beyond 12σ is cut (a discrete Gaussian is no wider than a Gaussian), and each sample is
    off by DISTANCE.
    """
    return contributions * size * (2 * exp(-(TAIL**2) / 2) + DISTANCE)


class PrivateUpdateCodec(UpdateCodec):
    """An UpdateCodec whose every encoded update carries its share of the noise, and no counts."""

    def __init__(
        self,
        length: int,
        value_bits: int,
        clip_norm: float,
        *,
        noise_multiplier: float,
        honest: int,
        sensitivity: float | None = None,
        compression_rate: float = 1.0,
        source: RandomSource | None = None,
    ) -> None:
        """Set what all parties must agree on; ParameterError when it cannot work.

        Args:
            length: values of an update.
            value_bits: of one integer.
            clip_norm: L2 norm; the range never exceeds it.
            noise_multiplier: z.
            honest: h.
            sensitivity: C, where the caller has bounded each unit's part of an update. Without it
                a unit is a whole update, which `encode` scales down to clip_norm.
            compression_rate: part of the values that is sent in a round.
            source: of the noise; who only decodes needs none.
        """
        super().__init__(length, value_bits, clip_norm, compression_rate=compression_rate)
        self._clips = sensitivity is None
        bound = clip_norm if sensitivity is None else sensitivity
        self.scale = NoiseScale(noise_multiplier, bound, honest)
        self._source = source
        self.grid(clip_norm)

    def grid(self, clip_range: float) -> NoiseGrid:
        """Return the integers of a round with this clip range."""
        return noise_grid(self.scale, self.sent_length, self.value_bits, clip_range)

    def first_public(self) -> PublicRange:
        """Return the range of the first round."""
        return PublicRange(start_range(self.clip_norm, self.sent_length))

    def next_public(self, public: PublicRange, mean: Mean) -> PublicRange:
        """Return the range of the next round.

        Nobody tells what leaves the range, so it must not narrow to find out.
        """
        return self._adapt(public, mean, FINEST_BITS)

    def encode(
        self,
        update: NDArray[Any],
        public: PublicRange,
        *,
        seed: int,
        index: int,
        round: int,
        counts: Counts = NO_COUNTS,
    ) -> Integers:
        """Return the noisy integers of an update, int32 (payload_length,); no counts are told.

        Values beyond the range are cut, which brings no two updates further apart.

        Raises:
            EncodingError: a wrong length, NaN or infinity, or a public range of another version.
            LocalProtocolError: this codec has no source of noise.
        """
        if self._source is None:
            raise LocalProtocolError("this codec only decodes: give it a source of noise")
        self._check_update(update)
        public.check()
        values = self._compression.apply(update, seed, round)
        if self._clips:
            values = clip(values, self.clip_norm)
        grid = self.grid(public.clip_range)
        cut = np.clip(values, -public.clip_range, public.clip_range)
        rng = generator(Stream.ROUNDING, seed, index, round)
        integers = quantise(cut, grid.largest, self.value_bits, NO_COUNTS, rng)
        size = self.sent_length
        noisy = integers[:size] + gaussian(grid.deviation).sample(self._source, size)
        integers[:size] = np.clip(noisy, 0, 2 * half_levels(self.value_bits))
        return integers

    def implausible(self, total: NDArray[Any], contributors: int, public: PublicRange) -> str:
        """Return "": noise makes honest means longer than any bound that would be of use."""
        return ""

    def _to_mean(self, total: Integers, contributors: int, public: PublicRange) -> Mean:
        largest = self.grid(public.clip_range).largest
        mean = dequantise(total, contributors, largest, self.value_bits)
        # Nothing is reported, so nothing is told either.
        spread = replace(mean.spread, clipped=0.0) if mean.spread else None
        return Mean(mean.update, 0, None, spread=spread)
