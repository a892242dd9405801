"""Streams that no two lives of a party have in common.

    seed = H(purpose; state key, fresh random bytes, process, what it is drawn for)

A fork has another process number, a copy that is restored from its state draws other bytes, and in
a snapshot of a whole machine, where both are the same again, what is drawn for another model or
other values is still another stream. A machine whose randomness fails is left with the state key.
Two lives that agree in everything compute the same bytes, of which nobody learns anything new.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mphe.arithmetic.sampling import SEED_BYTES, RandomSource, derive_seed
from mphe.arithmetic.system import System

PROCESS_BYTES = 8


def values_digest(values: NDArray[Any]) -> bytes:
    """Return SHA-256 of a vector.

    Integers are hashed as 16 bits where none is larger, which takes a quarter of the time. Negative
    ones may then look like others: they are refused before anything is encrypted.
    """
    if np.issubdtype(values.dtype, np.integer) and values.max(initial=0) < 1 << 16:
        values = values.astype("<u2")
    return sha256(np.ascontiguousarray(values).data).digest()


class Hedge:
    """Derives a new stream for each purpose; it has no position, so threads may share it.

    Attributes:
        key: the state key of its party, 32 secret bytes; kept as long as the party is.
        system: randomness and process.
    """

    def __init__(self, key: bytes, system: System) -> None:
        self.key = key
        self.system = system

    @classmethod
    def fresh(cls, system: System | None = None) -> Hedge:
        """Return one with a new state key, by default on this machine."""
        system = system or System()
        return cls(system.urandom(SEED_BYTES), system)

    def stream(self, purpose: str, *parts: bytes) -> RandomSource:
        """Return the stream of a purpose and of everything that its use depends on."""
        fresh, process = self.system.urandom(SEED_BYTES), self.system.process()
        life = (self.key, fresh, process.to_bytes(PROCESS_BYTES, "big"))
        return RandomSource(derive_seed("hedge/" + purpose, *life, *parts))
