"""How do times and bytes grow with clients, values and dropouts?

    python -m benchmarks.scaling [--most_clients 1000] [--longest 10000000]

Set-up runs with all parties in one process up to 256 clients, with a committee of 8 decryptors.
Rounds: the plan is that of n clients, up to 16 of them contribute, and since the server's work for
each is the same, its time for n is n times that. The committee's key is dealt, not agreed upon.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.federation import Federation, sends
from benchmarks.records import Spread, Table, measure, save, show
from mphe.arithmetic.ring import Element, Ring
from mphe.arithmetic.sampling import RandomSource, derive_seed
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import Plan, make_plan
from mphe.roles.machine import Output
from mphe.roles.rounds.outcomes import Summed
from mphe.scheme import decryption
from mphe.scheme.encryptor import Encryptor, Payload
from mphe.scheme.rlwe import CollectiveKey, aggregate_shares, common_reference, gen_share
from mphe.scheme.running_sum import RunningSum
from mphe.scheme.sharing import sharing_of
from mphe.wire import codec
from mphe.wire.messages import SERVER, Contribution

COMMITTEE, THRESHOLD = 8, 4
ROUNDS = 100
CONTRIBUTING = 16
SEED = bytes(32)
CLIENTS = (4, 16, 64, 256, 1000)
LENGTHS = (100_000, 316_228, 1_000_000, 3_162_278, 10_000_000)
SETUP_CLIENTS = (4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Args:
    """What is measured."""

    most_clients: int
    longest: int


def plan_for(clients: int, length: int) -> Plan:
    """Return the plan for n clients and a committee of decryptors."""
    committee = min(clients, COMMITTEE)
    threshold = min(THRESHOLD, committee)
    return make_plan(SessionParameters(clients, threshold, length, ROUNDS, decryptors=committee))


class Dealt:
    """A collective key whose secret one process knows: enough to time rounds."""

    def __init__(self, plan: Plan) -> None:
        """Deal shares of a sum of four secrets to the committee."""
        self.plan = plan
        self.ring = Ring(plan.threshold.ring)
        self.source = RandomSource.from_system()
        reference = common_reference(self.ring, SEED)
        parts = [gen_share(self.ring, reference, self.source) for _ in range(4)]
        public = aggregate_shares(self.ring, [part.public for part in parts])
        self.key = CollectiveKey(self.ring, reference, public)
        self.active = tuple(range(1, plan.session.threshold + 1))
        holders = list(range(1, plan.session.decryptors + 1))
        self.sharing = sharing_of(plan.session, self.ring)
        secrets = [self.ring.from_small(part.secret) for part in parts]
        dealt = [self.sharing.deal(0, secret, holders, self.source) for secret in secrets]
        self.shares = {
            j: self.sharing.aggregate([shares[j] for shares in dealt]) for j in self.active
        }

    def mask_keys(self, index: int) -> dict[int, tuple[int, bytes]]:
        """Return the zero-share keys of a decryptor."""
        return {
            peer: (
                1 if peer > index else -1,
                derive_seed("key", bytes([min(peer, index), max(peer, index)])),
            )
            for peer in self.active
            if peer != index
        }


def contribution(payload: Payload) -> Contribution:
    """Return a payload as the server gets it."""
    return Contribution(1, payload.c0, payload.c1, payload.body, b"", b"", b"")


@dataclass(frozen=True)
class Round:
    """The measured steps of a round."""

    encrypt: Spread
    add: Spread
    share: Spread
    recover: Spread
    upload: int


def one_round(plan: Plan) -> Round:
    """Time every step of a round, and check the sum."""
    dealt, length = Dealt(plan), plan.session.length
    count = min(plan.session.num_clients, CONTRIBUTING if length <= 1_000_000 else 4)
    encryptor = Encryptor(plan, dealt.key, SEED)
    running, rng = RunningSum(plan, SEED), np.random.default_rng(0)
    total = np.zeros(length, np.int64)
    encrypted, added, upload = [], [], 0
    for number in range(count + 1):
        values = rng.integers(0, 1 << plan.session.value_bits, length)
        started = time.perf_counter()
        payload = encryptor.encrypt(values, dealt.source)
        took = time.perf_counter() - started
        frame = codec.encode(contribution(payload))
        if number == 0:
            continue  # warms the caches up
        encrypted.append(took)
        upload = len(frame)
        started = time.perf_counter()
        message = codec.decode(frame, 1)
        if not isinstance(message, Contribution):
            raise TypeError("the codec returned another message")
        running.add(running.parse(message))
        added.append(time.perf_counter() - started)
        total += values
    request = decryption.Request(SEED, 1, 1, dealt.active, running.c1())
    answers: dict[int, list[Element]] = {}
    spreads = []
    for index in dealt.active:
        additive = dealt.sharing.additive_share(dealt.shares[index], index, dealt.active)
        scaled = decryption.scaled_share(plan, dealt.ring, additive)
        keys = dealt.mask_keys(index)
        answer = partial(decryption.gen_share, plan, dealt.ring, scaled, request, keys, SEED)
        spreads.append(measure(answer))
        layout, dropped = plan.threshold_layout(1), plan.dropped_share
        answers[index] = decryption.read_blocks(dealt.ring, layout, answer(), dropped)
    found = running.recover(list(answers.values()), count)
    if found is None or not np.array_equal(found, total):
        raise RuntimeError("the decrypted sum is not the plain sum")
    recover = measure(lambda: running.recover(list(answers.values()), count), 7, 1)
    return Round(Spread.of(encrypted), Spread.of(added[1:]), spreads[0], recover, upload)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return b of the least-squares fit value = a·size^b."""
    if len(sizes) < 2:
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


COLUMNS = ("client: encrypt", "bytes a value", "decryptor: share", "server: add one", "recover")


def grow(title: str, first: str, cases: list[tuple[int, Plan]]) -> Table:
    """Measure rounds of growing plans; the last row says how each column grows."""
    table = Table(title, (first, *COLUMNS, "decryptor bytes"))
    rounds = [(size, plan, one_round(plan)) for size, plan in cases]
    for size, plan, done in rounds:
        length = plan.session.length
        table.add(
            *(size, done.encrypt, done.upload / length, done.share, done.add, done.recover),
            plan.share_bytes
            + plan.threshold.blocks * plan.threshold.ring.degree * plan.threshold.ring.bits // 8,
        )
    sizes = [size for size, *_ in rounds]
    table.notes.append(
        f"grows like {first} to the power of: "
        + ", ".join(
            f"{name} {exponent(sizes, values):.2f}"
            for name, values in (
                ("encrypt", [r.encrypt.median for *_, r in rounds]),
                ("bytes", [float(r.upload) for *_, r in rounds]),
                ("share", [r.share.median for *_, r in rounds]),
                ("add one", [r.add.median for *_, r in rounds]),
                ("recover", [r.recover.median for *_, r in rounds]),
            )
        )
    )
    return table


def setup(most: int) -> Table:
    """Run the whole set-up with growing n; times are of all parties on one core."""
    table = Table("Set-up, committee of 8", ("clients", "seconds, all parties", "seconds a party"))
    sizes, seconds = [], []
    for clients in (n for n in SETUP_CLIENTS if n <= most):
        plan = plan_for(clients, 100_000)
        started = time.perf_counter()
        Federation(plan)
        took = time.perf_counter() - started
        sizes.append(float(clients))
        seconds.append(took)
        table.add(clients, took, took / (clients + 1))
    table.notes.append(
        f"All parties: n to the power of {exponent(sizes, seconds):.2f}; one run each. Every "
        "client adds up n shares of the key, so a party's part grows like n."
    )
    return table


def dropouts() -> Table:
    """Let clients vanish between their contribution and the decryption."""
    clients, length = 20, 100_000
    table = Table(
        "Dropout, n = 20, t = 10, 100,000 values",
        ("vanish", "contributors", "attempts", "server: whole round", "decryptor: one answer"),
    )
    for fraction in (0.0, 0.1, 0.3):
        gone = round(fraction * clients)
        plan = make_plan(SessionParameters(clients, clients // 2, length, 20))
        federation = Federation(plan)
        rng = np.random.default_rng(0)
        values = {i: rng.integers(0, 65536, length) for i in federation.contributors}
        rounds = [dropout_round(federation, values, gone) for _ in range(8)][1:]
        server = Spread.of([done[0] for done in rounds])
        answer = Spread.of([done[1] for done in rounds])
        table.add(f"{100 * fraction:.0f} %", clients, rounds[-1][2], server, answer)
    table.notes.append(
        "The clients that vanish are those that the server asks first, so that a second attempt "
        "is needed; deadlines are not waited for. They come back for the next round."
    )
    return table


def dropout_round(
    federation: Federation, values: dict[int, np.ndarray], gone: int
) -> tuple[float, float, int]:
    """Return the server's seconds, those of the slowest answer, and the attempts."""
    aggregator, server = federation.aggregator, 0.0
    outputs: list[Output] = []

    def serve(call: partial[list[Output]]) -> list[Output]:
        nonlocal server
        started = time.perf_counter()
        result = call()
        server += time.perf_counter() - started
        return result

    for send in sends(aggregator.start_round(b"", federation.contributors)):
        federation.contributors[send.receiver].receive(SERVER, send.message)
    for index, contributor in federation.contributors.items():
        payload = contributor.encrypt(values[index])
        message = sends(contributor.contribute(aggregator.round, payload))[0].message
        outputs = serve(partial(aggregator.receive, index, message))
    asked = [send.receiver for send in sends(outputs)]
    if gone:
        outputs = serve(partial(aggregator.lost, *asked[:gone]))
    answers = []
    for request in sends(outputs):
        started = time.perf_counter()
        decryptor = federation.decryptors[request.receiver]
        share = sends(decryptor.receive(SERVER, request.message))[0].message
        answers.append(time.perf_counter() - started)
        outputs = serve(partial(aggregator.receive, request.receiver, share))
    summed = next(output for output in outputs if isinstance(output, Summed))
    if not np.array_equal(summed.total, np.sum(list(values.values()), axis=0)):
        raise RuntimeError("the decrypted sum is not the plain sum")
    return server, max(answers), summed.attempts


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most_clients", type=int, default=1000, help="largest n")
    parser.add_argument("--longest", type=int, default=10_000_000, help="largest vector")
    args = Args(**vars(parser.parse_args()))
    lengths = [length for length in LENGTHS if length <= args.longest]
    clients = [n for n in CLIENTS if n <= args.most_clients]
    tables = [
        grow("Vector length, n = 8", "values", [(m, plan_for(8, m)) for m in lengths]),
        grow("Clients, 100,000 values", "clients", [(n, plan_for(n, 100_000)) for n in clients]),
        grow("Clients, 1,000,000 values", "clients", [(n, plan_for(n, 10**6)) for n in clients]),
        setup(args.most_clients),
        dropouts(),
    ]
    for table in tables:
        show(table)
    save("scaling", args, tables)


if __name__ == "__main__":
    main()
