"""No protection: float32 values, added."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.peer.common import Result, run


class Plain:
    """Sends vectors as they are."""

    def setup(self, vectors: NDArray[np.float32]) -> None:
        """Need no keys."""

    def begin(self) -> None:
        """Start a round."""
        self._total: NDArray[np.float64] = np.zeros(0)

    def encrypt(self, client: int, vector: NDArray[np.float32]) -> bytes:
        """Return the values' bytes."""
        return vector.tobytes()

    def size(self, upload: bytes) -> int:
        """Return the bytes of an upload."""
        return len(upload)

    def add(self, client: int, upload: bytes) -> None:
        """Add the values."""
        values = np.frombuffer(upload, np.float32)
        if not self._total.size:
            self._total = values.astype(np.float64)
        else:
            self._total += values

    def shares(self) -> list[float]:
        """Need no clients."""
        return []

    def recover(self) -> NDArray[np.float64]:
        """Return the sum."""
        return self._total


if __name__ == "__main__":
    run(
        Plain(),
        Result("plain float32", f"NumPy {np.__version__}", "none", "server sees every update"),
    )
