"""What does ML-KEM-768 beside X25519 cost a set-up?

    python -m benchmarks.exchange [--decryptors 16] [--threshold 12] [--pairs 21]

Whole set-ups of clients and server in one process, by turns with ML-KEM and without; CPU seconds,
medians over the pairs, and the ratio of the two in each pair.
"""

import argparse
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from benchmarks.records import Spread, Table, save, show
from mphe.arithmetic.system import System
from mphe.client import Client
from mphe.plan.agreement import SessionParameters
from mphe.roles.identity import Identity
from mphe.roles.setup import client as setup
from mphe.scheme import sealing
from mphe.scheme.sealing import Encapsulated, PairwiseKeys
from mphe.server import Server
from mphe.wire.messages import SERVER


@dataclass(frozen=True)
class Args:
    """What is measured."""

    decryptors: int
    threshold: int
    pairs: int


class WithoutKem(PairwiseKeys):
    """Keys of X25519 alone, for comparison."""

    def __init__(self, index: int, private: bytes, seed: bytes) -> None:
        with patch.object(sealing, "MLKEM768PrivateKey", _Nothing):
            super().__init__(index, private, seed)

    def decapsulate(self, peer: int, ciphertext: bytes) -> Encapsulated:
        """Return no secret."""
        return Encapsulated(peer, b"", b"")


class _Nothing:
    """Stands for a key that nobody has."""

    @classmethod
    def from_seed_bytes(cls, seed: bytes) -> "_Nothing":
        return cls()

    def public_key(self) -> "_Nothing":
        return self

    def public_bytes_raw(self) -> bytes:
        return b""


def encapsulate_nothing(system: System, peer: int, public: bytes) -> tuple[Encapsulated, bytes]:
    """Stand for `sealing.encapsulate`."""
    return Encapsulated(peer, b"", b""), b""


@contextmanager
def without_kem() -> Iterator[None]:
    """Let nobody encapsulate anything."""
    with (
        patch.object(setup, "PairwiseKeys", WithoutKem),
        patch.object(sealing, "is_encapsulation_key", lambda public: True),
        patch.object(sealing, "encapsulate", encapsulate_nothing),
        patch.object(sealing, "ENCAPSULATION_BYTES", 0),
    ):
        yield


def set_up(parameters: SessionParameters, identities: dict[int, Identity]) -> float:
    """Return the CPU seconds of one set-up of all parties."""
    roster = {index: identity.public for index, identity in identities.items()}
    started = time.process_time()
    server = Server(parameters, roster)
    clients = {i: Client(i, parameters, identities[i], roster) for i in roster}
    mail = deque((i, to, data) for i, c in clients.items() for to, data in c.start().mail)
    while mail:
        sender, receiver, data = mail.popleft()
        if receiver == SERVER:
            step = server.receive(sender, data)
        else:
            step = clients[receiver].receive(data)
        mail.extend((receiver, to, answer) for to, answer in step.mail)
    if not all(client.is_open for client in clients.values()):
        raise RuntimeError("the set-up failed")
    return time.process_time() - started


def run(args: Args) -> list[Table]:
    """Measure by turns."""
    parameters = SessionParameters(args.decryptors, args.threshold, 1000, 10)
    identities = {i: Identity.generate() for i in range(1, args.decryptors + 1)}
    took: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(args.pairs + 1):
        for with_kem in (True, False) if pair % 2 else (False, True):
            if with_kem:
                seconds = set_up(parameters, identities)
            else:
                with without_kem():
                    seconds = set_up(parameters, identities)
            took[with_kem].append(seconds)
    # The first pair warms caches.
    ratios = [one / other for one, other in zip(took[True][1:], took[False][1:], strict=True)]
    table = Table("Set-up, CPU of all parties", ("exchange", "time", "of X25519 alone"))
    table.add("X25519", Spread.of(took[False][1:]), None)
    table.add("X25519 and ML-KEM-768", Spread.of(took[True][1:]), Spread.of(ratios).median)
    return [table]


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decryptors", type=int, default=16)
    parser.add_argument("--threshold", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=21)
    args = Args(**vars(parser.parse_args()))
    tables = run(args)
    for table in tables:
        show(table)
    save("exchange", args, tables)


if __name__ == "__main__":
    main()
