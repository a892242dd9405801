"""Flower's SecAgg+ functions, put together as its client and server do, all clients neighbours."""

import importlib.metadata
import os
import time
from itertools import combinations
from typing import Any

import numpy as np
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import dequantize, quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from numpy.typing import NDArray

from benchmarks.peer.common import Result, run

REACH = 0.25
TARGET = 1 << 22
MODULUS = 1 << 32
"""Flower's defaults, but for the clipping range, which fits the vectors here."""


class Flower:
    """n - 1 pairwise masks and one of its own on every client."""

    def setup(self, vectors: NDArray[np.float32]) -> None:
        """Share pairwise keys."""
        self._n, length = vectors.shape
        self._shape = [(length,)]
        self._keys = {pair: os.urandom(32) for pair in combinations(range(self._n), 2)}

    def begin(self) -> None:
        """Draw the masks' seeds and deal them: Flower does it every round."""
        self._seeds = [os.urandom(32) for _ in range(self._n)]
        self._dealt = [create_shares(seed, self._n // 2, self._n) for seed in self._seeds]
        self._total: list[Any] = []

    def encrypt(self, client: int, vector: NDArray[np.float32]) -> bytes:
        """Return the masked vector."""
        values: list[Any] = list(quantize([vector], REACH, TARGET))
        own = pseudo_rand_gen(self._seeds[client], MODULUS, self._shape)
        values = parameters_addition(values, own)
        for other in range(self._n):
            if other == client:
                continue
            key = self._keys[min(client, other), max(client, other)]
            mask = pseudo_rand_gen(key, MODULUS, self._shape)
            change = parameters_addition if client > other else parameters_subtraction
            values = change(values, mask)
        return bytes(parameters_mod(values, MODULUS)[0].tobytes())

    def size(self, upload: bytes) -> int:
        """Return the bytes of an upload."""
        return len(upload)

    def add(self, client: int, upload: bytes) -> None:
        """Add and reduce."""
        values = [np.frombuffer(upload, np.int64)]
        added = parameters_addition(self._total, values) if self._total else values
        self._total = parameters_mod(added, MODULUS)

    def shares(self) -> list[float]:
        """Let a client look up the shares that it holds of the others' seeds."""
        started = time.perf_counter()
        self._shown = [[dealt[i] for i in range(self._n // 2)] for dealt in self._dealt]
        return [time.perf_counter() - started]

    def recover(self) -> NDArray[np.float64]:
        """Combine the seeds' shares and take the clients' own masks off."""
        for shown in self._shown:
            mask = pseudo_rand_gen(combine_shares(shown), MODULUS, self._shape)
            self._total = parameters_subtraction(self._total, mask)
        total = parameters_mod(self._total, MODULUS)
        # Each of the n summands was shifted by the clipping range.
        values = dequantize(total, REACH, TARGET)[0]
        return np.asarray(values - (self._n - 1) * REACH)


if __name__ == "__main__":
    run(
        Flower(),
        Result(
            "Flower SecAgg+",
            importlib.metadata.version("flwr"),
            "masks from NumPy's RandomState, its seed folded to 32 bits; 22-bit values",
            "server sees the sum, and more if it lies or tries 2^32 seeds; a dropout costs n masks",
        ),
    )
