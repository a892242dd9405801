"""Float vectors to small integers and back."""

from mphe.update.codec import Codec, PublicRange, UpdateCodec, clip
from mphe.update.private import PrivateUpdateCodec
from mphe.update.quantise import Counts, Mean, sample_weight

__all__ = [
    "Codec",
    "Counts",
    "Mean",
    "PrivateUpdateCodec",
    "PublicRange",
    "UpdateCodec",
    "clip",
    "sample_weight",
]
