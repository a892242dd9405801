"""How long do the steps of one round take, and how many bytes, against our own limits?

    python -m benchmarks.budgets [--length 199658] [--num_peers 8] [--threshold 4]

Every step runs through the real roles, one after the other in one process and one thread; medians
over the rounds, beside the time of copying the float32 vector in the same run.
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
from mphe.plan.plan import Plan, make_plan
from mphe.plan.printout import describe
from mphe.roles.machine import Output
from mphe.roles.rounds.outcomes import Summed
from mphe.wire.messages import SERVER


@dataclass(frozen=True)
class Args:
    """What is measured."""

    length: int
    num_peers: int
    threshold: int
    rounds: int


STEPS = ("encrypt", "decryption share", "aggregate", "recover", "copy float32")


def timed(seconds: list[float], call: Callable[[], list[Output]]) -> list[Output]:
    """Run a call and remember how long it took."""
    started = time.perf_counter()
    result = call()
    seconds.append(time.perf_counter() - started)
    return result


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


def report(plan: Plan, took: dict[str, list[float]]) -> list[Table]:
    """Return medians, spread and budgets as tables."""
    session = plan.session
    budgets = {
        "encrypt": 5.0,
        "decryption share": 3.0 + 0.3 * (session.threshold - 1),
        "aggregate": 0.5,
        "recover": 5.0,
    }
    if session.encryption == "direct":
        budgets = {}
    table = Table(f"Budgets, {session.encryption}", ("step", "time", "budget ms", "of a copy"))
    copy = Spread.of(took["copy float32"])
    for step in STEPS:
        spread = Spread.of(took[step])
        table.add(step, spread, budgets.get(step), spread.median / copy.median)
    sizes = Table(f"Bytes, {session.encryption}", ("what", "bytes", "a value", "budget a value"))
    sizes.add(
        "upload", plan.upload_bytes, plan.upload_bytes / session.length, 3.1 if budgets else None
    )
    sizes.add("decryption share", plan.share_bytes, None, None)
    sizes.add("decryption request", len_c1(plan), None, None)
    return [table, sizes]


def len_c1(plan: Plan) -> int:
    """Return the bytes of c1 in a decryption request."""
    ring = plan.threshold.ring
    return plan.threshold.blocks * ring.degree * ring.bits // 8


def run(args: Args, encryption: str) -> list[Table]:
    """Measure one mode."""
    session = SessionParameters(
        args.num_peers, args.threshold, args.length, args.rounds + 3, encryption=encryption
    )
    plan = make_plan(session)
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
    return report(plan, took)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=199658)
    parser.add_argument("--num_peers", type=int, default=8)
    parser.add_argument("--threshold", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=21)
    args = Args(**vars(parser.parse_args()))
    tables = [table for mode in ("hybrid", "direct") for table in run(args, mode)]
    for table in tables:
        show(table)
    save("budgets", args, tables)


if __name__ == "__main__":
    main()
