"""Float updates to what is encrypted, and summed integers back to their mean.

    encode: choose coordinates → clip to the norm → weigh → rotate → quantise, counts behind
    decode: split off the counts → dequantise → rotate back → put at the coordinates

Every step before rounding is linear, so the decoded sum is the mean of the updates. Both
directions follow from the public seed and the round; only the rounding also depends on a client's
index, so that clients do not round alike.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mphe.errors import EncodingError, ParameterError
from mphe.update.compression import Compression
from mphe.update.plausible import FLOAT_ROUNDING, implausible_mean, implausible_weight
from mphe.update.quantise import (
    MAX_WEIGHT,
    NO_COUNTS,
    Counts,
    Integers,
    Mean,
    Vector,
    dequantise,
    first_range,
    half_levels,
    next_range,
    payload_length,
    quantise,
    reported_weight,
    steps_of,
)
from mphe.update.rotation import Rotation
from mphe.update.streams import Stream, generator

CODEC_VERSION = 1
LEAST_RATE = 1e-4
# An update that was clipped before is left as it is: its norm is off by rounding.
_NORM_ROUNDING = 2.0**-21
_PIECE = 1 << 13
_PUBLIC = struct.Struct("<Id")


@dataclass(frozen=True)
class PublicRange:
    """What the server sends with the model, so that all clients of a round encode alike.

    Attributes:
        clip_range: R; values are rounded to steps between -R and R.
        version: of the codec that it is for.
    """

    clip_range: float
    version: int = CODEC_VERSION

    SIZE = _PUBLIC.size

    def to_bytes(self) -> bytes:
        """Return SIZE bytes: u32 version, float64 clip range, little-endian."""
        return _PUBLIC.pack(self.version, self.clip_range)

    @classmethod
    def from_bytes(cls, data: bytes) -> PublicRange:
        """Read `to_bytes`; EncodingError for another version, or a range that is none."""
        if len(data) != _PUBLIC.size:
            raise EncodingError(f"a clip range of {len(data)} bytes; it has {_PUBLIC.size}")
        version, clip_range = _PUBLIC.unpack(data)
        public = cls(clip_range, version)
        public.check()
        return public

    def check(self) -> None:
        """Refuse what this version cannot encode with; EncodingError."""
        if self.version != CODEC_VERSION:
            raise EncodingError(
                f"updates of version {self.version} where {CODEC_VERSION} is spoken: give all "
                "parties the same release"
            )
        if not 0 < self.clip_range < float("inf"):
            raise EncodingError(f"{self.clip_range} is no clip range")


class Codec(Protocol):
    """What a way of sending updates offers: quantised, private, or in clear."""

    @property
    def payload_length(self) -> int:
        """Values of one encoded update."""

    def first_public(self) -> PublicRange:
        """Return what goes out with the first model."""

    def next_public(self, public: PublicRange, mean: Mean) -> PublicRange:
        """Return what goes out with the next model, after the mean of a round."""

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
        """Return the values to be summed."""

    def unsent(self, update: Vector, *, seed: int, round: int) -> Vector | None:
        """Return what of an update `encode` does not send; None when it sends all."""

    def decode(
        self,
        total: NDArray[Any],
        contributors: int,
        public: PublicRange,
        *,
        seed: int | None = None,
        round: int | None = None,
    ) -> Mean:
        """Return the mean of encoded updates from their sum."""

    def implausible(self, total: NDArray[Any], contributors: int, public: PublicRange) -> str:
        """Return why honest updates cannot add up to this, in one line; "" where they may."""


def clip(vector: NDArray[Any], norm: float) -> NDArray[Any]:
    """Return floats (n,) scaled down to L2 norm `norm` if they are longer, else as they are.

    Raises EncodingError, a ValueError, when the vector holds NaN or infinity.
    """
    length = math.sqrt(_squares(vector))
    if not math.isfinite(length):
        raise EncodingError("the update holds NaN or infinity")
    if length <= norm * (1 + _NORM_ROUNDING):
        return vector
    return (vector * (norm / length)).astype(vector.dtype)


def _squares(vector: NDArray[Any]) -> float:
    """Return the sum of squares, in doubles; pieces are too short for BLAS to wake its threads."""
    total = 0.0
    for start in range(0, vector.size, _PIECE):
        piece = vector[start : start + _PIECE].astype(np.float64)
        total += float(piece @ piece)
    return total


class UpdateCodec:
    """Updates of one length as small non-negative integers, whose sums are decoded to means.

        codec = UpdateCodec(length=1000, value_bits=16, clip_norm=3.0)
        public = codec.first_public()
        integers = codec.encode(update, public, seed=0, index=1, round=1)
        mean = codec.decode(total, contributors, public)
        public = codec.next_public(public, mean)

    `payload_length` values are encrypted: `SessionParameters(length=codec.payload_length)`.
    """

    def __init__(
        self,
        length: int,
        value_bits: int,
        clip_norm: float,
        *,
        compression_rate: float = 1.0,
        rotation: bool = False,
        weighted: bool = False,
    ) -> None:
        """Set what all parties must agree on; ParameterError when it cannot work.

        Args:
            length: values of an update.
            value_bits: of one integer, 4 to 24, as in SessionParameters.
            clip_norm: L2 norm to which longer updates are scaled down.
            compression_rate: part of the values that is sent in a round, LEAST_RATE to 1.
            rotation: spread an update over its values first, for few value_bits.
            weighted: the mean is by the weights that clients report, up to MAX_WEIGHT; else every
                update counts the same, whatever they report.
        """
        for holds, reason in (
            (length >= 1, f"{length} values; use 1 or more"),
            (4 <= value_bits <= 24, f"value_bits {value_bits}; use 4 to 24"),
            (0 < clip_norm < float("inf"), f"clip_norm {clip_norm:g}; use one above 0"),
            (
                LEAST_RATE <= compression_rate <= 1,
                f"compression_rate {compression_rate:g}; use {LEAST_RATE:g} to 1",
            ),
        ):
            if not holds:
                raise ParameterError(reason)
        self.length = length
        self.value_bits = value_bits
        self.clip_norm = clip_norm
        self._compression = Compression(length, compression_rate)
        self._rotation = Rotation(self._compression.length) if rotation else None
        self._weighted = weighted
        self._limit = clip_norm * (MAX_WEIGHT if weighted else 1.0)
        self._needs_seed = rotation or self._compression.length < length

    @property
    def sent_length(self) -> int:
        """Values of an update that are sent in a round, before rotation and counts."""
        return self._compression.length

    @property
    def payload_length(self) -> int:
        """Integers of an encoded update: what is sent of it, with padding, and its counts."""
        sent = self._rotation.length if self._rotation else self._compression.length
        return payload_length(sent, self.value_bits)

    def first_public(self) -> PublicRange:
        """Return the range of the first round."""
        return PublicRange(first_range(self.clip_norm, self.sent_length, self.value_bits))

    def next_public(self, public: PublicRange, mean: Mean) -> PublicRange:
        """Return the range of the next round: wider or narrower, as the last mean asks for."""
        return self._adapt(public, mean, self.value_bits)

    def _adapt(self, public: PublicRange, mean: Mean, bits: int) -> PublicRange:
        if mean.spread is None:
            return public
        return PublicRange(next_range(public.clip_range, mean.spread, self._limit, bits))

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
        """Return the integers of an update and its counts, int32 (payload_length,).

        Args:
            update: floats (length,); longer than clip_norm it is scaled down.
            public: range of this round, from the server.
            seed: public, the same for all parties.
            index: of this client.
            round: number of the round, from 1.
            counts: reported in the sum; `update` is multiplied by their weight here.

        Raises:
            EncodingError: a wrong length, NaN or infinity, or a public range of another version.
        """
        self._check_update(update)
        public.check()
        # Shorter floats would round away from the norm that they were clipped to.
        values = self._compression.apply(update, seed, round).astype(
            np.result_type(update, np.float32), copy=False
        )
        values = clip(values, self.clip_norm)
        if counts.weight != 1:
            values = values * np.float32(counts.weight)
        if self._rotation is not None:
            values = self._rotation.apply(values, seed, round)
        rng = generator(Stream.ROUNDING, seed, index, round)
        return quantise(values, public.clip_range, self.value_bits, counts, rng)

    def unsent(self, update: Vector, *, seed: int, round: int) -> Vector | None:
        """Return what of an update `encode` leaves for later rounds, float32 (length,).

        Add it to the next update once this one was counted (error feedback). None without
        compression.
        """
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
        """Return the mean of the updates whose integers were summed, by their weights.

        Args:
            total: whole numbers (payload_length,).
            contributors: how many updates are in it, at least 1.
            public: range of this round.
            seed: as in `encode`; not needed without compression and rotation.
            round: likewise.

        Raises:
            EncodingError: a wrong length.
            ParameterError: seed or round is needed.
        """
        self._check_total(total, contributors)
        mean = self._to_mean(total.astype(np.int64, copy=False), contributors, public)
        return self._undo(mean, seed, round)

    def implausible(self, total: NDArray[Any], contributors: int, public: PublicRange) -> str:
        """Return why honest updates cannot add up to a total, in one line; "" where they may.

        Every update was clipped, so the mean is no longer than clip_norm and what rounding adds:
        less than a step for each value and contributor. Weights have their own bounds.

        Args:
            total: whole numbers (payload_length,).
            contributors: how many updates are in it, at least 1.
            public: range of the round.

        Raises:
            EncodingError: a wrong length.
        """
        self._check_total(total, contributors)
        weight = float(contributors)
        if self._weighted:
            weight = reported_weight(total, self.value_bits)
            if wrong := implausible_weight(weight, contributors):
                return wrong
        steps = steps_of(total, contributors, self.value_bits)
        step = public.clip_range / half_levels(self.value_bits) / weight
        rounding = contributors * math.sqrt(steps.size) * step
        limit = (self.clip_norm + rounding) * (1 + FLOAT_ROUNDING)
        return implausible_mean(math.sqrt(_squares(steps)) * step, limit)

    def _to_mean(self, total: Integers, contributors: int, public: PublicRange) -> Mean:
        bits, weighted = self.value_bits, self._weighted
        return dequantise(total, contributors, public.clip_range, bits, weighted)

    def _undo(self, mean: Mean, seed: int | None, round: int | None) -> Mean:
        """Rotate a mean back and put it at its coordinates."""
        if not self._needs_seed:
            return mean
        if seed is None or round is None:
            raise ParameterError("compressed and rotated updates need seed and round to decode")
        update = mean.update
        if self._rotation is not None:
            update = self._rotation.undo(update, seed, round)
        return replace(mean, update=self._compression.undo(update, seed, round))

    def _check_update(self, update: NDArray[Any]) -> None:
        if update.shape != (self.length,) or update.dtype.kind != "f":
            raise EncodingError(
                f"an update of {update.dtype} {update.shape} where floats ({self.length},) belong"
            )

    def _check_total(self, total: NDArray[Any], contributors: int) -> None:
        if total.shape != (self.payload_length,) or contributors < 1:
            raise EncodingError(
                f"a sum {total.shape} of {contributors} updates where ({self.payload_length},) of "
                "1 or more belongs"
            )
