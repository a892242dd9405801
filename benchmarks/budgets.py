"""How long do the steps of one round take, and how many bytes, against our own limits?

    python -m benchmarks.budgets [--length 199658] [--num_peers 8] [--threshold 4]

Every step runs through the real roles, one after the other in one process and one thread; medians
over the rounds, beside the time of copying the float32 vector in the same run.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from statistics import median, quantiles

# One thread is what the budgets mean; it must be set before NumPy is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mphe.aggregator import Aggregator, Summed
from mphe.agreement import SessionParameters
from mphe.contributor import Contributor
from mphe.decryptor import Decryptor
from mphe.encryptor import Encryptor
from mphe.machine import Output, Send
from mphe.messages import SERVER, DecryptionRequest, Message
from mphe.parameters import Plan, describe, make_plan
from mphe.sampling import RandomSource
from mphe.setup import PublicSession, SessionKeys
from mphe.setup_client import KeysReady, SetupClient
from mphe.setup_server import SetupDone, SetupServer

STEPS = ("encrypt", "decryption share", "aggregate", "recover", "copy float32")


class Federation:
    """All parties in one process."""

    def __init__(self, plan: Plan) -> None:
        """Run the set-up."""
        self.plan = plan
        signers = {i: Ed25519PrivateKey.generate() for i in range(1, plan.session.num_clients + 1)}
        identities = {i: key.public_key().public_bytes_raw() for i, key in signers.items()}
        self._server = SetupServer(plan, identities)
        self._clients = {
            i: SetupClient(i, plan, key, identities, RandomSource.from_system())
            for i, key in signers.items()
        }
        self._keys: dict[int, SessionKeys] = {}
        self.decryptors: dict[int, Decryptor] = {}
        self._session: PublicSession | None = None
        self._queue: list[tuple[int, int, Message]] = []
        for client in self._clients.values():
            self._emit(client.index, client.start())
        self._pump()
        if self._session is None:
            raise RuntimeError("the set-up did not finish")
        self.aggregator: Aggregator = Aggregator(self._session)
        self.contributors: dict[int, Contributor] = {
            i: Contributor(i, Encryptor(plan, k.key, k.crs_seed), RandomSource.from_system())
            for i, k in self._keys.items()
        }

    def _emit(self, sender: int, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Send):
                self._queue.append((sender, output.receiver, output.message))
            elif isinstance(output, KeysReady):
                self._keys[sender] = output.keys
                self.decryptors[sender] = Decryptor(output.keys, RandomSource.from_system())
            elif isinstance(output, SetupDone):
                self._session = output.session

    def _pump(self) -> None:
        while self._queue:
            sender, receiver, message = self._queue.pop(0)
            if receiver == SERVER:
                self._emit(SERVER, self._server.receive(sender, message))
            elif isinstance(message, DecryptionRequest):
                self._emit(receiver, self.decryptors[receiver].receive(sender, message))
            else:
                self._emit(receiver, self._clients[receiver].receive(sender, message))


def timed(seconds: list[float], call: Callable[[], list[Output]]) -> list[Output]:
    """Run a call and remember how long it took."""
    started = time.perf_counter()
    result = call()
    seconds.append(time.perf_counter() - started)
    return result


def sends(outputs: list[Output]) -> list[Send]:
    """Return what is to be delivered."""
    return [output for output in outputs if isinstance(output, Send)]


def one_round(
    federation: Federation, values: list[np.ndarray], took: dict[str, list[float]]
) -> None:
    """Run one round, check its sum against plain addition and collect times of each step."""
    aggregator = federation.aggregator
    for send in sends(aggregator.start_round(b"", federation.contributors)):
        federation.contributors[send.receiver].receive(SERVER, send.message)
    outputs: list[Output] = []
    for (index, contributor), update in zip(federation.contributors.items(), values, strict=True):
        started = time.perf_counter()
        payload = contributor.encrypt(update)
        took["encrypt"].append(time.perf_counter() - started)
        message = sends(contributor.contribute(aggregator.round, payload))[0].message
        outputs = timed(took["aggregate"], partial(aggregator.receive, index, message))
    # The last contribution also closes the round; it is no typical one.
    took["aggregate"].pop()
    for request in sends(outputs):
        decryptor = federation.decryptors[request.receiver]
        answer = timed(
            took["decryption share"], partial(decryptor.receive, SERVER, request.message)
        )
        last: list[float] = []
        message = sends(answer)[0].message
        outputs = timed(last, partial(aggregator.receive, request.receiver, message))
    took["recover"] += last
    summed = next(output for output in outputs if isinstance(output, Summed))
    if not np.array_equal(summed.total, np.sum(values, axis=0)):
        raise RuntimeError("the decrypted sum is not the plain sum")
    for send in sends(outputs):
        federation.contributors[send.receiver].receive(SERVER, send.message)


def report(plan: Plan, took: dict[str, list[float]]) -> None:
    """Print medians, spread and budgets."""
    session = plan.session
    budgets = {
        "encrypt": 5.0,
        "decryption share": 3.0 + 0.3 * (session.threshold - 1),
        "aggregate": 0.5,
        "recover": 5.0,
    }
    print(f"{'step':18}{'median ms':>11}{'quartiles ms':>17}{'budget ms':>11}{'of a copy':>11}")
    copy = median(took["copy float32"])
    for step in STEPS:
        low, middle, high = (1e3 * value for value in quantiles(took[step], n=4))
        budget = f"{budgets[step]:.1f}" if step in budgets else ""
        spread = f"{low:.2f}-{high:.2f}"
        ratio = middle / 1e3 / copy
        print(f"{step:18}{middle:>11.2f}{spread:>17}{budget:>11}{ratio:>10.0f}x")
    print(f"upload {plan.upload_bytes / session.length:.3f} bytes a value (budget 3.1, float32 4)")
    print(f"decryption share {plan.share_bytes} bytes, request {len_c1(plan)} bytes")


def len_c1(plan: Plan) -> int:
    """Return the bytes of c1 in a decryption request."""
    ring = plan.threshold.ring
    return plan.threshold.blocks * ring.degree * ring.bits // 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=199658)
    parser.add_argument("--num_peers", type=int, default=8)
    parser.add_argument("--threshold", type=int, default=4)
    parser.add_argument("--encryption", choices=("hybrid", "direct"), default="hybrid")
    parser.add_argument("--rounds", type=int, default=21)
    args = parser.parse_args()
    session = SessionParameters(
        args.num_peers, args.threshold, args.length, args.rounds + 3, encryption=args.encryption
    )
    plan = make_plan(session)
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}")
    print(describe(plan))
    federation = Federation(plan)
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 1 << session.value_bits, args.length) for _ in range(args.num_peers)]
    vector = np.zeros(args.length, np.float32)
    took: dict[str, list[float]] = {step: [] for step in STEPS}
    for number in range(args.rounds + 3):
        if number == 3:
            # Caches and clocks are warm now.
            took = {step: [] for step in STEPS}
        one_round(federation, values, took)
        started = time.perf_counter()
        vector.copy()
        took["copy float32"].append(time.perf_counter() - started)
    report(plan, took)


if __name__ == "__main__":
    main()
