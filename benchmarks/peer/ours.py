"""This project, hybrid or direct: quantise, encrypt, add, decrypt by t of n."""

import sys
import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.federation import Federation, sends
from benchmarks.peer.common import ROUNDS, Result, run
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import make_plan
from mphe.roles.machine import Output
from mphe.roles.rounds.outcomes import Summed
from mphe.update.quantise import Counts, dequantise, payload_length, quantise
from mphe.wire import codec
from mphe.wire.messages import SERVER

REACH = 0.25
BITS = 16


class Ours:
    """Clients 1..n, of which half decrypt."""

    def __init__(self, encryption: str) -> None:
        """Choose the mode."""
        self._encryption = encryption
        self._rng = np.random.default_rng(0)

    def setup(self, vectors: NDArray[np.float32]) -> None:
        """Run the whole set-up."""
        self._n, size = vectors.shape
        length = payload_length(size, BITS)
        session = SessionParameters(
            *(self._n, max(2, self._n // 2), length, ROUNDS), encryption=self._encryption
        )
        self._federation = Federation(make_plan(session))

    def begin(self) -> None:
        """Start a round."""
        aggregator = self._federation.aggregator
        self._outputs: list[Output] = []
        for send in sends(aggregator.start_round(b"", self._federation.contributors)):
            self._federation.contributors[send.receiver].receive(SERVER, send.message)

    def encrypt(self, client: int, vector: NDArray[np.float32]) -> bytes:
        """Return an encoded contribution."""
        contributor = self._federation.contributors[client + 1]
        payload = contributor.encrypt(quantise(vector, REACH, BITS, Counts(0.0), self._rng))
        outputs = contributor.contribute(self._federation.aggregator.round, payload)
        return codec.encode(sends(outputs)[0].message)

    def size(self, upload: bytes) -> int:
        """Return the bytes of an upload."""
        return len(upload)

    def add(self, client: int, upload: bytes) -> None:
        """Decode and add; the last one also closes the round."""
        message = codec.decode(upload, client + 1)
        self._outputs = self._federation.aggregator.receive(client + 1, message)

    def shares(self) -> list[float]:
        """Let t clients answer."""
        seconds, self._shares = [], []
        for request in sends(self._outputs):
            started = time.perf_counter()
            decryptor = self._federation.decryptors[request.receiver]
            (answer,) = sends(decryptor.receive(SERVER, request.message))
            seconds.append(time.perf_counter() - started)
            self._shares.append((request.receiver, answer.message))
        return seconds

    def recover(self) -> NDArray[np.float64]:
        """Return the sum."""
        for sender, message in self._shares:
            outputs = self._federation.aggregator.receive(sender, message)
        summed = next(output for output in outputs if isinstance(output, Summed))
        mean = dequantise(summed.total.astype(np.int64, copy=False), self._n, REACH, BITS)
        return np.asarray(mean.update.astype(np.float64) * self._n, np.float64)


if __name__ == "__main__":
    mode = sys.argv[2]
    run(
        Ours(mode),
        Result(
            f"this project, {mode}",
            f"NumPy {np.__version__}",
            "RLWE 128 bits, smudging 64 bits, t of n decrypt",
            "server sees the sum, and more if it lies and aggregates are not verified; t colluding "
            "clients decrypt; rounds survive dropouts",
        ),
    )
