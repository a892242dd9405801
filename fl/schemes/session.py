"""What server and clients both derive from the flags: parameters, limits, and what they send."""

import struct
from dataclasses import dataclass

import msgpack
import numpy as np
from numpy.typing import NDArray

from fl.config.arguments import Args
from mphe.errors import EncodingError
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import Plan, make_plan
from mphe.update import PublicRange

Vector = NDArray[np.float32]
MAX_NOTE = 256
_REFERENCE = struct.Struct("<d")
_HEAD_BYTES = PublicRange.SIZE + _REFERENCE.size


def plan_for(args: Args, length: int) -> Plan:
    """Return the plan for contributions of `length` values.

    Raises:
        ParameterError: these flags cannot be served safely.
    """
    return make_plan(
        SessionParameters(
            num_clients=args.num_peers,
            threshold=args.threshold,
            length=length,
            rounds=args.num_iterations,
            robust=args.robust,
            encryption=args.encryption,
            value_bits=args.value_bits,
            decryptors=args.decryptors,
            min_contributors=args.min_contributors,
            max_attempts=args.max_attempts,
            verified=args.verify_aggregate,
            max_corrupt=args.max_corrupt,
        )
    )


def max_frame(plan: Plan, size: int) -> int:
    """Return the longest frame in bytes that any message of a session needs."""
    ring = plan.threshold.ring
    element = ring.degree * ring.bits // 8 + 256
    clients = plan.session.num_clients
    relayed = clients * (2 * element + plan.threshold.blocks * (element + plan.proof_bytes))
    return max(relayed, plan.upload_bytes, 4 * size) + (1 << 20)


@dataclass(frozen=True)
class Model:
    """What a round starts from: the weights, and what all clients encode their updates with.

    A client's weight is its samples divided by `reference`; 0 gives all the same weight.
    """

    weights: Vector
    public: PublicRange
    reference: float = 0.0

    def to_bytes(self) -> bytes:
        """Return the bytes of RoundStart.model: public, float64 reference, float32 weights."""
        head = self.public.to_bytes() + _REFERENCE.pack(self.reference)
        return head + self.weights.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, size: int) -> "Model":
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


@dataclass(frozen=True)
class Note:
    """What a client says in clear beside its contribution: seconds, for the report only."""

    train: float = 0.0
    encrypt: float = 0.0

    def to_bytes(self) -> bytes:
        """Return the bytes of Contribution.metrics."""
        packed: bytes = msgpack.packb([self.train, self.encrypt])
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> "Note":
        """Read `to_bytes`; anything else is an empty note, since nothing depends on it."""
        try:
            fields = msgpack.unpackb(data[:MAX_NOTE])
            train, encrypt = (max(0.0, min(float(value), 1e6)) for value in fields)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException):
            return cls()
        return cls(train, encrypt)
