"""Float vectors to small integers and back."""

from mphe.update.codec import Codec, PublicRange, UpdateCodec, clip
from mphe.update.private import PrivateUpdateCodec
from mphe.update.quantise import NO_COUNTS, Counts, Mean, Vector, sample_weight

__all__ = [
    "NO_COUNTS",
    "Codec",
    "Counts",
    "Mean",
    "PrivateUpdateCodec",
    "PublicRange",
    "UpdateCodec",
    "Vector",
    "clip",
    "sample_weight",
]
