"""How much memory does a round take, in multiples of the float32 vector?

    python -m benchmarks.memory [--length 10000000] [--num_peers 8]

The peak of what Python and NumPy allocate (tracemalloc) from the float32 update to the encoded
contribution on a client, and from the first contribution to the mean update on the server; caches
of the common reference polynomials included, the model's own copies not. Limits: 6 vectors on a
client, 6 and one running sum on the server.
"""

import argparse
import tracemalloc
from dataclasses import dataclass

import numpy as np

from benchmarks.federation import Federation, sends
from benchmarks.records import Table, save, show
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import Plan, make_plan
from mphe.roles.machine import Output
from mphe.roles.rounds.contributor import Contributor
from mphe.roles.rounds.outcomes import Summed
from mphe.scheme.encryptor import Encryptor
from mphe.update.quantise import Counts, dequantise, payload_length, quantise
from mphe.wire import codec
from mphe.wire.messages import SERVER

LIMIT = 6.0
BITS = 16
REACH = 1.0


@dataclass(frozen=True)
class Args:
    """What is measured."""

    length: int
    num_peers: int


def plan_of(size: int, clients: int, capacity: int | None = None) -> Plan:
    """Return the plan for updates of `size` values."""
    length = payload_length(size, BITS)
    return make_plan(SessionParameters(clients, 2, length, 10, capacity=capacity))


def running_sum_size(size: int, clients: int) -> float:
    """Return the running sum's memory in float32 vectors: int64 limbs of every body."""
    layout = plan_of(size, clients).payload
    if layout is None:
        raise ValueError("direct mode is not measured here")
    return layout.coefficients * layout.ring.limbs * 8 / (4 * size)


def contribute(contributor: Contributor, round: int, size: int) -> bytes:
    """Return an encoded contribution of a random update."""
    rng = np.random.default_rng(contributor.index)
    update = rng.standard_normal(size, dtype=np.float32)
    values = quantise(update, REACH, BITS, Counts(2.3), rng)
    payload = contributor.encrypt(values)
    return codec.encode(sends(contributor.contribute(round, payload))[0].message)


def begin(federation: Federation) -> int:
    """Start a round and return its number."""
    aggregator = federation.aggregator
    for send in sends(aggregator.start_round(b"", federation.contributors)):
        federation.contributors[send.receiver].receive(SERVER, send.message)
    return aggregator.round


def client_peak(size: int, clients: int) -> float:
    """Return the peak of one client's contribution in float32 vectors of `size` values."""
    federation = Federation(plan_of(size, clients))
    round = begin(federation)
    tracemalloc.start()
    try:
        contribute(federation.contributors[1], round, size)
        return tracemalloc.get_traced_memory()[1] / (4 * size)
    finally:
        tracemalloc.stop()


def server_peak(size: int, clients: int, capacity: int | None = None) -> float:
    """Return the peak of the server's round in float32 vectors of `size` values."""
    federation = Federation(plan_of(size, clients, capacity))
    # One cipher for all: what the clients keep is not the server's.
    keys = federation.keys[1]
    shared = Encryptor(federation.plan, keys.key, keys.crs_seed)
    for index, client in federation.clients.items():
        client.contributor = Contributor(index, shared, transcript=keys.transcript)
    round = begin(federation)
    frames = [contribute(federation.contributors[i], round, size) for i in federation.contributors]
    outputs: list[Output] = []
    tracemalloc.start()
    try:
        for index, frame in zip(federation.contributors, frames, strict=True):
            # What arrives is a copy of its own.
            message = codec.decode(bytes(bytearray(frame)), index)
            outputs = federation.aggregator.receive(index, message)
            del message
        for request in sends(outputs):
            answer = federation.decryptors[request.receiver].receive(SERVER, request.message)
            share = sends(answer)[0].message
            outputs = federation.aggregator.receive(request.receiver, share)
        summed = next(output for output in outputs if isinstance(output, Summed))
        del outputs
        dequantise(summed.total.astype(np.int64, copy=False), clients, REACH, BITS)
        return tracemalloc.get_traced_memory()[1] / (4 * size)
    finally:
        tracemalloc.stop()


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=10_000_000, help="values of the update")
    parser.add_argument("--num_peers", type=int, default=8, help="clients")
    args = Args(**vars(parser.parse_args()))
    size, clients = args.length, args.num_peers
    table = Table("Memory in float32 vectors", ("party", "peak", "limit"))
    total = running_sum_size(size, clients)
    table.add("client", client_peak(size, clients), LIMIT)
    table.add(f"server, {clients} clients", server_peak(size, clients), LIMIT + total)
    half = max(2, clients // 2)
    name = f"server, {half} clients"
    table.add(name, server_peak(size, half, capacity=clients), LIMIT + total)
    show(table)
    save("memory", args, [table])


if __name__ == "__main__":
    main()
