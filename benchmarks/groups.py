"""What do groups cost a round?

    python -m benchmarks.groups [--pairs 21] [--length 199658] [--num_peers 32] [--max_groups 8]

Rounds of one session without groups and of one with them take turns, all parties in one process and
one thread; the ratio is that of two rounds next to each other. A round's time is what its parties
would take on machines of their own: the slowest update, the server's work, the slowest answer.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.federation import Federation, sends
from benchmarks.records import Spread, Table, save, show
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import make_plan
from mphe.roles.machine import Output
from mphe.roles.rounds.aggregator import Summed
from mphe.wire.messages import SERVER


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
        round: of the slowest update, the server and the slowest answer.
        process: of everything that all parties did, one after the other.
    """

    server: float
    round: float
    process: float


class Clock:
    """Counts the seconds of calls."""

    def __init__(self) -> None:
        self.took: list[float] = []

    def __call__(self, call: Callable[[], list[Output]]) -> list[Output]:
        """Make a call."""
        started = time.perf_counter()
        result = call()
        self.took.append(time.perf_counter() - started)
        return result


def one_round(federation: Federation, values: dict[int, np.ndarray]) -> Seconds:
    """Run a round and check its sum against plain addition."""
    aggregator, server, updates, answers = federation.aggregator, Clock(), Clock(), Clock()

    def contribute(index: int) -> list[Output]:
        contributor = federation.contributors[index]
        payload = contributor.encrypt(values[index])
        return list(contributor.contribute(aggregator.round, payload))

    started = server(partial(aggregator.start_round, b"", federation.contributors))
    for send in sends(started):
        federation.contributors[send.receiver].receive(SERVER, send.message)
    outputs: list[Output] = []
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
    return Seconds(spent, spent + max(updates.took) + max(answers.took), spent + told)


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

    whole, divided = session(1), session(args.max_groups)
    pairs = [(one_round(whole, values), one_round(divided, values)) for _ in range(args.pairs + 1)]
    for name in ("server", "round", "process"):
        plain = [getattr(a, name) for a, _ in pairs[1:]]
        split = [getattr(b, name) for _, b in pairs[1:]]
        ratios = [b / a for a, b in zip(plain, split, strict=True)]
        size = f"t = {threshold} of {decryptors}"
        table.add(size, name, Spread.of(plain), Spread.of(split), f"{np.median(ratios):.2f}")


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=21, help="rounds of each kind")
    parser.add_argument("--length", type=int, default=199_658, help="values of an update")
    parser.add_argument("--num_peers", type=int, default=32, help="clients")
    parser.add_argument("--min_contributors", type=int, default=4, help="of each group")
    parser.add_argument("--max_groups", type=int, default=8, help="groups")
    args = Args(**vars(parser.parse_args()))
    n, groups = args.num_peers, args.max_groups
    table = Table(
        f"{groups} groups, {n} clients, {args.length} values",
        ("decryptors", "seconds of", "1 group", f"{groups} groups", "ratio"),
    )
    for decryptors, threshold in ((4, 3), (8, 5), (n, n // 2 + 1)):
        compare(args, decryptors, threshold, table)
    table.notes.append(
        "round: slowest update, server and slowest answer, as on machines of their own, without "
        "training and network; process: all parties after one another."
    )
    show(table)
    save("groups", args, [table])


if __name__ == "__main__":
    main()
