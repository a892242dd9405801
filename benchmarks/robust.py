"""What hostile clients do to training, and what groups and aggregators leave of it.

    python -m benchmarks.robust [--seeds 5] [--rounds 80] [--encrypted 1]

32 clients in one process, 8 groups of 4, 3 clients that send -20 or -7 times their update, cut to
the range that a value may have and no shorter; all others clip theirs. Five seeds, each with and
without hostile clients. Digits of mnist5k, a network of 784-32-10 in NumPy; codec, partition, judge
and aggregators are those of the library. The groups' sums are added up in the clear, since those of
encrypted updates are exact; with --encrypted so many seeds are trained again by real parties, which
also find culprits out. Writes benchmarks/results/robust.json.
"""

import argparse
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import cos, pi
from statistics import mean, stdev
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import mphe
from benchmarks.records import Table, save, show
from fl.config.partition import Partition
from fl.data.load import Dataset, load_dataset
from fl.data.partition import split as split_data
from mphe.scheme import partition
from mphe.update import Counts, GroupAggregator, PublicRange, UpdateCodec, Vector
from mphe.wire.messages import Draw

CLIENTS, GROUPS, SMALLEST, HOSTILE = 32, 8, 4, 3
FACTOR = -20.0
# Three honest updates and one of these are as long as four honest ones, and point the other way.
AS_LONG = -7.0
HIDDEN, CLASSES = 32, 10
VALUE_BITS, CLIP_NORM, BATCH, RATE = 16, 3.0, 64, 0.5
DECRYPTORS, THRESHOLD = 32, 8
AGGREGATORS = ("mean", "median", "trimmed_mean:0.375", "norm_filter")
TABLE = "Accuracy beside hostile clients"

Sum = tuple[NDArray[np.int64], int]
Judge = Callable[[NDArray[Any], int], str]
Encode = Callable[[int], NDArray[Any]]
"""Index of a client → what it contributes to the round."""


@dataclass(frozen=True)
class Args:
    """What is measured."""

    seeds: int
    rounds: int
    encrypted: int


# -- what is learnt ----------------------------------------------------------------------------


class Network:
    """Scores of ten digits from one hidden layer; weights are one vector float32 (size,)."""

    shapes = ((784, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,))
    size = sum(int(np.prod(shape)) for shape in shapes)

    def start(self, seed: int) -> Vector:
        """Return random weights."""
        random = np.random.default_rng([seed, 1])
        parts = [
            random.normal(size=shape) / np.sqrt(shape[0]) if len(shape) > 1 else np.zeros(shape)
            for shape in self.shapes
        ]
        return np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)

    def _parts(self, weights: Vector) -> list[Vector]:
        ends = np.cumsum([np.prod(shape) for shape in self.shapes])[:-1]
        pieces = np.split(weights, ends)
        return [piece.reshape(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def gradient(self, weights: Vector, x: Vector, y: NDArray[np.int64]) -> Vector:
        """Return the gradient of the mean cross entropy, float32 (size,)."""
        w1, b1, w2, b2 = self._parts(weights)
        hidden = np.maximum(x @ w1 + b1, 0)
        scores = hidden @ w2 + b2
        scores -= scores.max(axis=1, keepdims=True)
        chances = np.exp(scores)
        chances /= chances.sum(axis=1, keepdims=True)
        chances[np.arange(len(y)), y] -= 1
        chances /= len(y)
        back = (chances @ w2.T) * (hidden > 0)
        parts = (x.T @ back, back.sum(axis=0), hidden.T @ chances, chances.sum(axis=0))
        return np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)

    def accuracy(self, weights: Vector, x: Vector, y: NDArray[np.int64]) -> float:
        """Return the part of the digits that are read right."""
        w1, b1, w2, b2 = self._parts(weights)
        scores = np.maximum(x @ w1 + b1, 0) @ w2 + b2
        return float((scores.argmax(axis=1) == y).mean())


class Clients:
    """All clients of a seed: their data, and what they send."""

    def __init__(self, data: Dataset, seed: int, hostile: int, factor: float) -> None:
        self.codec = UpdateCodec(Network.size, VALUE_BITS, CLIP_NORM)
        # It scales nothing down; values beyond the range are cut, or the sum would be out of it.
        self._unclipped = UpdateCodec(Network.size, VALUE_BITS, 1e9)
        self._seed, self._factor = seed, np.float32(factor)
        self._x = data.train_x.reshape(len(data.train_y), -1)
        self._y = data.train_y
        self._parts = split_data(Partition.parse("iid"), self._y, CLIENTS, seed)
        chosen = np.random.default_rng([seed, 2]).permutation(CLIENTS)[:hostile]
        self.hostile = {int(place) + 1 for place in chosen}
        self._network = Network()

    def contribution(
        self, index: int, round: int, weights: Vector, public: PublicRange
    ) -> NDArray[Any]:
        """Return what a client sends."""
        random = np.random.default_rng([self._seed, 3, index, round])
        part = self._parts[index - 1]
        batch = random.choice(part, min(BATCH, len(part)), replace=False)
        update = self._network.gradient(weights, self._x[batch], self._y[batch])
        where: dict[str, Any] = {"seed": self._seed, "index": index, "round": round}
        honest = self.codec.encode(update, public, **where, counts=Counts(samples=len(part)))
        if index not in self.hostile:
            return honest
        values = self._unclipped.encode(self._factor * update, public, **where)
        # It reports what an honest client would, not how many of its values were cut.
        values[Network.size :] = honest[Network.size :]
        return values


# -- how it is summed --------------------------------------------------------------------------


class Summing(Protocol):
    """A way to have the groups' sums of a round."""

    def sums(self, round: int, encode: Encode, judge: Judge) -> tuple[list[Sum], int]:
        """Return the plausible sums, and the number of the others."""


class InClear:
    """Adds up by itself; an implausible group is left out of the round, and nobody is named."""

    def __init__(self, seed: int) -> None:
        draw = Draw(1, GROUPS, seed.to_bytes(partition.SALT_BYTES, "big"))
        runs = partition.runs(b"benchmark", draw, CLIENTS)
        self._groups = partition.split(runs, range(1, CLIENTS + 1), SMALLEST)

    def sums(self, round: int, encode: Encode, judge: Judge) -> tuple[list[Sum], int]:
        """Return the plausible sums, and the number of the others."""
        found = []
        for group in self._groups:
            total = np.stack([encode(index) for index in group]).sum(axis=0, dtype=np.int64)
            if not judge(total, len(group)):
                found.append((total, len(group)))
        return found, len(self._groups) - len(found)


@dataclass
class Encrypted:
    """Real parties, whose server also finds out who cheats.

    Attributes:
        excluded: who was found out, and in which round.
    """

    length: int
    rounds: int
    excluded: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Run the set-up."""
        parameters = mphe.SessionParameters(
            num_clients=CLIENTS,
            threshold=THRESHOLD,
            length=self.length,
            rounds=self.rounds,
            value_bits=VALUE_BITS,
            decryptors=DECRYPTORS,
            min_contributors=SMALLEST,
            max_groups=GROUPS,
            max_corrupt=HOSTILE,
        )
        identities = {i: mphe.Identity.generate() for i in range(1, CLIENTS + 1)}
        roster = {i: identity.public for i, identity in identities.items()}
        self._judge: Judge = lambda total, contributors: ""
        self._server = mphe.Server(
            parameters, roster, judge=lambda total, contributors: self._judge(total, contributors)
        )
        self._clients = {i: mphe.Client(i, parameters, identities[i], roster) for i in roster}
        self._mail: deque[tuple[int, int, bytes]] = deque()
        self._encode: Encode = lambda index: np.zeros(0)
        self._summed: mphe.Summed | None = None
        for index, client in self._clients.items():
            self._carry_out(index, client.start())
        self._deliver()

    def sums(self, round: int, encode: Encode, judge: Judge) -> tuple[list[Sum], int]:
        """Return the plausible sums, and the number of the others."""
        self._encode, self._judge, self._summed = encode, judge, None
        self._carry_out(0, self._server.start_round(b"model", self._server.members))
        self._deliver()
        groups: tuple[mphe.GroupSum, ...] = self._summed.groups if self._summed else ()
        found = [(g.total, len(g.contributors)) for g in groups if g.total is not None]
        return found, len(groups) - len(found)

    def _carry_out(self, party: int, step: mphe.Step) -> None:
        self._mail.extend((party, receiver, data) for receiver, data in step.mail)
        for event in step.events:
            if isinstance(event, mphe.TrainOn):
                client = self._clients[party]
                self._carry_out(party, client.contribute(event.round, self._encode(party)))
            elif isinstance(event, mphe.Summed):
                self._summed = event
            elif isinstance(event, mphe.Excluded):
                self.excluded[event.client] = self._server.round

    def _deliver(self) -> None:
        while self._mail:
            sender, receiver, data = self._mail.popleft()
            if receiver:
                step = self._clients[receiver].receive(data)
            elif sender in self.excluded:
                continue
            else:
                step = self._server.receive(sender, data)
            self._carry_out(receiver, step)


# -- runs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A row.

    Attributes:
        aggregator: how groups are combined.
        hostile: clients.
        judged: whether long means are refused.
        factor: of what hostile clients send.
    """

    aggregator: str
    hostile: int
    judged: bool
    factor: float = FACTOR


CASES = (
    *(Case(name, 0, False) for name in AGGREGATORS),
    *(Case(name, HOSTILE, judged) for judged in (False, True) for name in AGGREGATORS),
    *(Case(name, HOSTILE, True, AS_LONG) for name in AGGREGATORS),
)


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        accuracy: on the test digits, after the last round.
        lost: groups that were left out, over all rounds.
    """

    accuracy: float
    lost: int


def train(case: Case, seed: int, rounds: int, data: Dataset, summing: Summing) -> Result:
    """Train one model with the clients of a seed."""
    clients, network = Clients(data, seed, case.hostile, case.factor), Network()
    codec, aggregator = clients.codec, GroupAggregator.parse(case.aggregator)
    weights, public, lost = network.start(seed), codec.first_public(), 0
    for round in range(1, rounds + 1):
        now = weights, public

        def encode(index: int, number: int = round, now: Any = now) -> NDArray[Any]:
            return clients.contribution(index, number, *now)

        def judge(total: NDArray[Any], contributors: int, range: PublicRange = public) -> str:
            return codec.implausible(total, contributors, range) if case.judged else ""

        def decode(total: NDArray[Any], contributors: int, range: PublicRange = public) -> Any:
            return codec.decode(total, contributors, range)

        sums, left_out = summing.sums(round, encode, judge)
        lost += left_out
        if sums:
            step = aggregator.combine(sums, decode)
            public = codec.next_public(public, step)
            rate = RATE * (1 + cos(pi * (round - 1) / rounds)) / 2
            weights = weights - np.float32(rate) * step.update
    x = data.test_x.reshape(len(data.test_y), -1)
    return Result(network.accuracy(weights, x, data.test_y), lost)


def row(case: Case, how: str, results: Sequence[Result], clean: Sequence[Result]) -> list[Any]:
    """Return the cells of a case; `clean` are the same seeds by the mean, nobody hostile."""
    found = [result.accuracy for result in results]
    difference = [100 * (a - b.accuracy) for a, b in zip(found, clean, strict=True)]
    spread = f" ± {stdev(difference):.1f}" if len(difference) > 1 else ""
    return [
        case.aggregator,
        f"{case.hostile}, {case.factor:g} times" if case.hostile else "none",
        "yes" if case.judged else "no",
        how,
        f"{mean(found):.3f}",
        f"{mean(difference):+.1f}{spread}",
        f"{min(difference):+.1f}",
        f"{mean(result.lost for result in results):.0f}",
        " ".join(f"{accuracy:.3f}" for accuracy in found),
    ]


def measure(args: Args, data: Dataset) -> Table:
    """Train all cases with all seeds."""
    columns = (
        *("aggregator", "hostile clients", "long means refused", "sums", "accuracy"),
        *("points against clean", "worst seed", "groups left out", "by seed"),
    )
    table = Table(TABLE, columns)
    seeds = range(args.seeds)
    clean: list[Result] = []
    for case in CASES:
        results = [train(case, seed, args.rounds, data, InClear(seed)) for seed in seeds]
        clean = clean or results
        table.add(*row(case, "in clear", results, clean))
    encrypted = (Case("mean", HOSTILE, True), Case("median", HOSTILE, True))
    for case in encrypted if args.encrypted else ():
        results, found = [], []
        for seed in range(args.encrypted):
            length = UpdateCodec(Network.size, VALUE_BITS, CLIP_NORM).payload_length
            parties = Encrypted(length, args.rounds)
            results.append(train(case, seed, args.rounds, data, parties))
            hostile = Clients(data, seed, case.hostile, case.factor).hostile
            wrong = set(parties.excluded) - hostile
            rounds = ", ".join(str(number) for number in sorted(parties.excluded.values()))
            found.append(
                f"{case.aggregator}, seed {seed}, encrypted: excluded {len(parties.excluded)} of "
                f"{len(hostile)} in rounds {rounds or 'none'}, {len(wrong)} of them honest"
            )
        table.add(*row(case, "encrypted", results, clean[: args.encrypted]))
        table.notes += found
    return table


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--encrypted", type=int, default=1, help="seeds that real parties train")
    args = Args(**vars(parser.parse_args()))
    table = measure(args, load_dataset("mnist5k", 0))
    show(table)
    save("robust", args, [table])


if __name__ == "__main__":
    main()
