"""What a round starts from: weights, and what all clients encode their updates with."""

import struct
from dataclasses import dataclass

import numpy as np

from mphe import EncodingError
from mphe.update import PublicRange, Vector

_REFERENCE = struct.Struct("<d")
_HEAD_BYTES = PublicRange.SIZE + _REFERENCE.size


@dataclass(frozen=True)
class RoundModel:
    """What a round starts from: the weights, and what all clients encode their updates with.

    A client's weight is its samples divided by `reference`; 0 gives all the same weight.
    """

    weights: Vector
    public: PublicRange
    reference: float = 0.0

    def check_weighting(self, weighted: bool) -> None:
        """Refuse a reference where all weights are the same; EncodingError.

        It would let a server that lies choose whose update a sum consists of.
        """
        if self.reference and not weighted:
            raise EncodingError(
                f"the server names {self.reference:g} samples as weight 1 where --weighting is "
                "uniform: give all parties the same --weighting, or distrust the server"
            )

    def to_bytes(self) -> bytes:
        """Return the bytes of RoundStart.model: public, float64 reference, float32 weights."""
        head = self.public.to_bytes() + _REFERENCE.pack(self.reference)
        return head + self.weights.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, size: int) -> "RoundModel":
        """Read `to_bytes`; EncodingError unless it holds `size` finite weights and a range."""
        if len(data) != _HEAD_BYTES + 4 * size:
            raise EncodingError(
                f"a model of {len(data)} bytes where {size} weights belong: give all parties the "
                "same --model"
            )
        public = PublicRange.from_bytes(data[: PublicRange.SIZE])
        (reference,) = _REFERENCE.unpack_from(data, PublicRange.SIZE)
        weights = np.frombuffer(data, "<f4", offset=_HEAD_BYTES)
        if not (0 <= reference < float("inf") and np.isfinite(weights).all()):
            raise EncodingError("the model holds numbers that are not finite")
        return cls(weights.astype(np.float32), public, reference)
