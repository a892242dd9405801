"""Float vectors to small integers and back."""

from mphe.update.aggregators import GroupAggregator
from mphe.update.codec import Codec, PublicRange, UpdateCodec, clip
from mphe.update.compression import Compression, sent_length
from mphe.update.private import (
    MIN_DEVIATION,
    NoiseScale,
    PrivateUpdateCodec,
    failure_probability,
    noise_grid,
    start_range,
)
from mphe.update.quantise import FINEST_BITS, NO_COUNTS, Counts, Mean, Vector, sample_weight
from mphe.update.streams import Stream, generator

__all__ = [
    "FINEST_BITS",
    "MIN_DEVIATION",
    "NO_COUNTS",
    "Codec",
    "Compression",
    "Counts",
    "GroupAggregator",
    "Mean",
    "NoiseScale",
    "PrivateUpdateCodec",
    "PublicRange",
    "Stream",
    "UpdateCodec",
    "Vector",
    "clip",
    "failure_probability",
    "generator",
    "noise_grid",
    "sample_weight",
    "sent_length",
    "start_range",
]
