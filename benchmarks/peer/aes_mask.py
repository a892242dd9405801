"""The floor of masking: 16-bit values under one AES-256-CTR mask, shared with one other client.

Clients 2i and 2i + 1 share a key; one adds the keystream and the other subtracts it.
"""

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from benchmarks.peer.common import Result, run

REACH = 0.25
LARGEST = (1 << 16) - 1


class Masked:
    """Adds one keystream to quantised values."""

    def setup(self, vectors: NDArray[np.float32]) -> None:
        """Share a key between neighbours."""
        if len(vectors) % 2:
            raise ValueError("clients come in pairs here: use an even number")
        self._clients = len(vectors)
        self._keys = [os.urandom(32) for _ in range(len(vectors) // 2)]
        self._round = 0

    def begin(self) -> None:
        """Start a round with a fresh nonce."""
        self._round += 1
        self._total: NDArray[np.uint32] = np.zeros(0, np.uint32)

    def encrypt(self, client: int, vector: NDArray[np.float32]) -> bytes:
        """Return masked 32-bit words."""
        scaled = (vector + np.float32(REACH)) * np.float32(LARGEST / (2 * REACH))
        words = np.rint(np.clip(scaled, 0, LARGEST, out=scaled)).astype(np.uint32)
        nonce = self._round.to_bytes(8, "big") + bytes(8)
        stream = Cipher(algorithms.AES(self._keys[client // 2]), modes.CTR(nonce)).encryptor()
        mask = np.frombuffer(stream.update(bytes(words.nbytes)), np.uint32)
        return bytes((words - mask if client % 2 else words + mask).tobytes())

    def size(self, upload: bytes) -> int:
        """Return the bytes of an upload."""
        return len(upload)

    def add(self, client: int, upload: bytes) -> None:
        """Add modulo 2^32."""
        words = np.frombuffer(upload, np.uint32)
        self._total = words.copy() if not self._total.size else self._total + words

    def shares(self) -> list[float]:
        """Need no clients: masks cancel."""
        return []

    def recover(self) -> NDArray[np.float64]:
        """Return the sum."""
        return self._total.astype(np.float64) * (2 * REACH / LARGEST) - self._clients * REACH


if __name__ == "__main__":
    run(
        Masked(),
        Result(
            "one AES-CTR mask",
            f"NumPy {np.__version__}",
            "256-bit keys",
            "a server with the one neighbour reads an update; one dropout spoils the sum",
        ),
    )
