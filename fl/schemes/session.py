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
from mphe.update.compression import sent_length
from mphe.update.quantise import payload_length
from mphe.update.rotation import Rotation, padded_length

Vector = NDArray[np.float32]
MAX_NOTE = 256
_HEAD = struct.Struct("<dd")


def quantised_length(args: Args, size: int) -> int:
    """Return how many quantised values a client sends of an update of `size` values."""
    sent = sent_length(size, args.compression_rate)
    return padded_length(sent) if args.rotation else sent


def rotation_for(args: Args, size: int) -> Rotation | None:
    """Return the rotation of what is sent of updates of `size` values; None without one."""
    sent = sent_length(size, args.compression_rate)
    return Rotation(sent, args.seed) if args.rotation else None


def plan_for(args: Args, size: int) -> Plan:
    """Return the plan for updates of `size` values.

    Raises:
        ParameterError: these flags cannot be served safely.
    """
    return make_plan(
        SessionParameters(
            num_clients=args.num_peers,
            threshold=args.threshold,
            length=payload_length(quantised_length(args, size), args.value_bits),
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
    """What a round starts from: the weights, and the range of quantised updates.

    A client's weight is its samples divided by `reference`; 0 gives all the same weight.
    """

    weights: Vector
    reach: float
    reference: float = 0.0

    def to_bytes(self) -> bytes:
        """Return the bytes of RoundStart.model."""
        return _HEAD.pack(self.reach, self.reference) + self.weights.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, size: int) -> "Model":
        """Read `to_bytes`; EncodingError unless it holds `size` finite weights and a range."""
        if len(data) != _HEAD.size + 4 * size:
            raise EncodingError(
                f"a model of {len(data)} bytes where {size} weights belong: give all parties the "
                "same --model"
            )
        reach, reference = _HEAD.unpack_from(data)
        weights = np.frombuffer(data, "<f4", offset=_HEAD.size)
        sound = 0 < reach < float("inf") and 0 <= reference < float("inf")
        if not (sound and np.isfinite(weights).all()):
            raise EncodingError("the model holds numbers that are not finite")
        return cls(weights.astype(np.float32), reach, reference)


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
