"""TenSEAL CKKS with NVFlare's parameters: one secret key that all clients hold."""

from typing import Any

import numpy as np
import tenseal
from numpy.typing import NDArray

from benchmarks.peer.common import Result, run

DEGREE = 8192
SLOTS = DEGREE // 2


class TenSEAL:
    """Encrypts 4,096 values a ciphertext."""

    def setup(self, vectors: NDArray[np.float32]) -> None:
        """Make the one key pair."""
        self._length = vectors.shape[1]
        self._context: Any = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=[60, 40, 40]
        )
        self._context.global_scale = 2**40
        self._public = tenseal.context_from(self._context.serialize(save_secret_key=False))

    def begin(self) -> None:
        """Start a round."""
        self._total: list[Any] = []

    def encrypt(self, client: int, vector: NDArray[np.float32]) -> list[bytes]:
        """Return serialised ciphertexts."""
        return [
            tenseal.ckks_vector(self._public, vector[start : start + SLOTS]).serialize()
            for start in range(0, self._length, SLOTS)
        ]

    def size(self, upload: list[bytes]) -> int:
        """Return the bytes of an upload."""
        return sum(map(len, upload))

    def add(self, client: int, upload: list[bytes]) -> None:
        """Read and add."""
        read = [tenseal.ckks_vector_from(self._public, part) for part in upload]
        if not self._total:
            self._total = read
            return
        for total, part in zip(self._total, read):  # noqa: B905  # as Python 3.9 reads it too
            total += part

    def shares(self) -> list[float]:
        """Leave decryption to whoever has the key."""
        return []

    def recover(self) -> NDArray[np.float64]:
        """Decrypt with the shared secret key."""
        key = self._context.secret_key()
        return np.concatenate([total.decrypt(key) for total in self._total])


if __name__ == "__main__":
    run(
        TenSEAL(),
        Result(
            "TenSEAL CKKS",
            tenseal.__version__,
            "RLWE 128 bits (8192, [60, 40, 40]), no smudging",
            "every client holds the secret key: server with one client reads every update",
        ),
    )
