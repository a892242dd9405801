"""What do groups cost a round?

    python -m benchmarks.groups [--pairs 21] [--length 199658] [--num_peers 32] [--max_groups 8]

Rounds of one session without groups and of one with them take turns, all parties in one process and
one thread; seconds are those of the processor, a ratio is that of two rounds next to each other. In
the last lines every client also trains on a batch of 256 digits of mnist5k (one does, and counts n
times).
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.federation import Federation, sends
from benchmarks.records import Spread, Table, save, show
from fl.data.load import load_dataset
from fl.model.trainer import Trainer, configure_tensorflow
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import make_plan
from mphe.roles.machine import Output
from mphe.roles.rounds.outcomes import Summed
from mphe.wire.messages import SERVER

BATCH = 256


@dataclass(frozen=True)
class Args:
    """What is measured."""

    pairs: int
    length: int
    num_peers: int
    min_contributors: int
    max_groups: int


@dataclass(frozen=True)
class Seconds:
    """Of one round.

    Attributes:
        server: of the server.
        alone: of the slowest client's encryption, the server and the slowest answer.
        parties: of everything that all parties did, without training.
        training: of the whole round.
    """

    server: float
    alone: float
    parties: float
    training: float


NAMES = {
    "server": "the server",
    "alone": "server, slowest client",
    "parties": "all parties",
    "training": "all parties, training",
}


class Clock:
    """Counts the processor's seconds of calls."""

    def __init__(self) -> None:
        self.took: list[float] = []

    def __call__(self, call: Callable[[], list[Output]]) -> list[Output]:
        """Make a call."""
        started = time.process_time()
        result = call()
        self.took.append(time.process_time() - started)
        return result


def one_round(
    federation: Federation, values: dict[int, np.ndarray], train: Callable[[], object]
) -> Seconds:
    """Run a round, with one client's training, and check its sum against plain addition."""
    aggregator, server, updates, answers = federation.aggregator, Clock(), Clock(), Clock()
    training = Clock()

    def compute() -> list[Output]:
        train()
        return []

    def contribute(index: int) -> list[Output]:
        contributor = federation.contributors[index]
        payload = contributor.encrypt(values[index])
        return list(contributor.contribute(aggregator.round, payload))

    started = server(partial(aggregator.start_round, b"", federation.contributors))
    for send in sends(started):
        federation.contributors[send.receiver].receive(SERVER, send.message)
    outputs: list[Output] = []
    training(compute)  # one client's, for all
    for index in values:
        (sent,) = sends(updates(partial(contribute, index)))
        outputs = server(partial(aggregator.receive, index, sent.message))
    for request in sends(outputs):
        decryptor = federation.decryptors[request.receiver]
        (share,) = sends(answers(partial(decryptor.receive, SERVER, request.message)))
        outputs = server(partial(aggregator.receive, request.receiver, share.message))
    summed = next(output for output in outputs if isinstance(output, Summed))
    if not np.array_equal(summed.total, np.sum(list(values.values()), axis=0)):
        raise RuntimeError("the decrypted sum is not the plain sum")
    spent, told = sum(server.took), sum(updates.took) + sum(answers.took)
    alone = spent + max(updates.took) + max(answers.took)
    return Seconds(spent, alone, spent + told, spent + told + len(values) * training.took[0])


def compare(args: Args, decryptors: int, threshold: int, table: Table) -> None:
    """Add a row: rounds without groups, rounds with groups, and their ratios."""
    rng = np.random.default_rng(0)
    values = {i: rng.integers(0, 1 << 16, args.length) for i in range(1, args.num_peers + 1)}

    def session(groups: int) -> Federation:
        parameters = SessionParameters(
            num_clients=args.num_peers,
            threshold=threshold,
            length=args.length,
            rounds=1000,
            decryptors=decryptors,
            min_contributors=args.min_contributors,
            max_groups=groups,
        )
        return Federation(make_plan(parameters))

    data = load_dataset("mnist5k", 0)
    trainer = Trainer(0, "cnn", data)
    batch = partial(trainer.gradient, data.train_x[:BATCH], data.train_y[:BATCH])
    whole, divided = session(1), session(args.max_groups)
    pairs = [
        (one_round(whole, values, batch), one_round(divided, values, batch))
        for _ in range(args.pairs + 1)
    ]
    for name, shown in NAMES.items():
        plain = [getattr(a, name) for a, _ in pairs[1:]]
        split = [getattr(b, name) for _, b in pairs[1:]]
        ratios = [b / a for a, b in zip(plain, split, strict=True)]
        size = f"t = {threshold} of {decryptors}"
        table.add(size, shown, Spread.of(plain), Spread.of(split), f"{np.median(ratios):.2f}")


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=21, help="rounds of each kind")
    parser.add_argument("--length", type=int, default=199_658, help="values of an update")
    parser.add_argument("--num_peers", type=int, default=32, help="clients")
    parser.add_argument("--min_contributors", type=int, default=4, help="of each group")
    parser.add_argument("--max_groups", type=int, default=8, help="groups")
    configure_tensorflow(1)
    args = Args(**vars(parser.parse_args()))
    n, groups = args.num_peers, args.max_groups
    table = Table(
        f"{groups} groups, {n} clients, {args.length} values",
        ("decryptors", "seconds of", "1 group", f"{groups} groups", "ratio"),
    )
    for decryptors, threshold in ((4, 3), (8, 5), (n, n // 2 + 1)):
        compare(args, decryptors, threshold, table)
    table.notes.append(
        "slowest client: as on machines of their own, one encryption and one answer; nothing waits "
        "for a network."
    )
    show(table)
    save("groups", args, [table])


if __name__ == "__main__":
    main()
