"""What a client says in clear of how long its part of a round took; for the report only."""

from dataclasses import dataclass

import msgpack

MAX_BYTES = 256


@dataclass(frozen=True)
class Timings:
    """Seconds of one client in one round."""

    train: float = 0.0
    encrypt: float = 0.0

    def to_bytes(self) -> bytes:
        """Return the bytes of Contribution.note."""
        packed: bytes = msgpack.packb([self.train, self.encrypt])
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> "Timings":
        """Read `to_bytes`; anything else counts as nothing, since nothing depends on it."""
        try:
            fields = msgpack.unpackb(data[:MAX_BYTES])
            train, encrypt = (max(0.0, min(float(value), 1e6)) for value in fields)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException):
            return cls()
        return cls(train, encrypt)
