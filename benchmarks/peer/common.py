"""What every peer's script shares; NumPy and the standard library only, Python 3.10."""

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8
ENOUGH_SECONDS = 60.0


@dataclass
class Result:
    """What a peer measured; times in seconds, the first round left out.

    Attributes:
        system: name and parameters.
        version: of the library.
        security: which setting.
        leaks: what whom it shows, and what happens at dropouts.
        setup: all parties, once.
        encrypt: one client, from float32 values to the bytes of an upload.
        add: the server, one upload, from its bytes.
        share: one client's part in a decryption; empty where clients have none.
        recover: the server, to float values; 0 where there is nothing to do.
        upload_bytes: of one client.
        error: largest error of a value of the sum.
    """

    system: str
    version: str
    security: str
    leaks: str
    setup: float = 0.0
    encrypt: list[float] = field(default_factory=list)
    add: list[float] = field(default_factory=list)
    share: list[float] = field(default_factory=list)
    recover: list[float] = field(default_factory=list)
    upload_bytes: int = 0
    error: float = 0.0


class Peer(Protocol):
    """A system under measurement."""

    def setup(self, vectors: NDArray[np.float32]) -> None:
        """Make all keys for these clients."""

    def begin(self) -> None:
        """Start a round with an empty sum."""

    def encrypt(self, client: int, vector: NDArray[np.float32]) -> Any:
        """Return an upload."""

    def size(self, upload: Any) -> int:
        """Return the bytes of an upload."""

    def add(self, client: int, upload: Any) -> None:
        """Add an upload to the sum."""

    def shares(self) -> list[float]:
        """Let clients do their part of the decryption; return the seconds of each."""

    def recover(self) -> NDArray[np.float64]:
        """Return the sum."""


def measure(peer: Peer, result: Result, vectors: NDArray[np.float32]) -> Result:
    """Run rounds and fill in the result; the first round warms up."""
    started = time.perf_counter()
    peer.setup(vectors)
    result.setup = time.perf_counter() - started
    expected = vectors.astype(np.float64).sum(axis=0)
    began = time.perf_counter()
    for number in range(ROUNDS):
        peer.begin()
        times: tuple[list[float], list[float]] = ([], [])
        for client, vector in enumerate(vectors):
            started = time.perf_counter()
            upload = peer.encrypt(client, vector)
            times[0].append(time.perf_counter() - started)
            result.upload_bytes = peer.size(upload)
            started = time.perf_counter()
            peer.add(client, upload)
            times[1].append(time.perf_counter() - started)
        shares = peer.shares()
        started = time.perf_counter()
        total = peer.recover()
        recovery = time.perf_counter() - started
        result.error = max(result.error, float(np.abs(total - expected).max()))
        if number:
            result.encrypt += times[0]
            result.add += times[1]
            result.share += shares
            result.recover.append(recovery)
        if number > 2 and time.perf_counter() - began > ENOUGH_SECONDS:
            break
    return result


def run(peer: Peer, result: Result) -> None:
    """Measure with the vectors of the file that the command line names; print JSON."""
    vectors: NDArray[np.float32] = np.load(sys.argv[1])["vectors"]
    print(json.dumps(asdict(measure(peer, result, vectors))))
