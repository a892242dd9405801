"""How much work a round is, counted instead of timed: a slip shows on any machine.

The reference case is the CNN's update among 8 clients of which 4 decrypt. Transforms, random bytes
and bytes on the wire are exact: a change that moves one of them has to say so here. Memory is a
limit, a little above what was measured.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from mphe.arithmetic.sampling import RandomSource
from mphe.roles.machine import Output, Send
from mphe.roles.rounds.outcomes import Summed
from mphe.wire import codec
from mphe.wire.messages import SERVER, Contribution, DecryptionRequest, DecryptionShare, Message
from tests.mphe.support import CNN
from tests.simulation import Simulation

N, T = 8, 4
MEBI = 1 << 20


@dataclass
class Work:
    """What a step did.

    Attributes:
        forward: transforms of one polynomial, `numpy.fft.fft`.
        inverse: the same back.
        random: bytes of keystream, seeds for further streams included.
        peak: largest memory in bytes beyond what was there before.
    """

    forward: int = 0
    inverse: int = 0
    random: int = 0
    peak: int = 0


@dataclass
class Round:
    """The work of each step of one round, and the length of each message."""

    steps: dict[str, Work] = field(default_factory=dict)
    lengths: dict[type[Any], int] = field(default_factory=dict)


@contextmanager
def counted() -> Iterator[Work]:
    """Count transforms, random bytes and memory while the block runs."""
    work, patch = Work(), pytest.MonkeyPatch()
    draw = RandomSource.bytes

    def counting(transform: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(values: Any, *args: Any, **kwargs: Any) -> Any:
            rows = int(np.prod(values.shape[:-1]))
            setattr(work, name, getattr(work, name) + rows)
            return transform(values, *args, **kwargs)

        return call

    def drawing(source: RandomSource, count: int) -> bytes:
        work.random += count
        return draw(source, count)

    patch.setattr(np.fft, "fft", counting(np.fft.fft, "forward"))
    patch.setattr(np.fft, "ifft", counting(np.fft.ifft, "inverse"))
    patch.setattr(RandomSource, "bytes", drawing)
    tracemalloc.start()
    try:
        yield work
        work.peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        patch.undo()


def messages(outputs: list[Output]) -> list[Send]:
    return [output for output in outputs if isinstance(output, Send)]


def measured(done: Round, step: str, call: Callable[[], list[Output]]) -> list[Output]:
    with counted() as work:
        outputs = call()
    done.steps[step] = work
    return outputs


def one_round(simulation: Simulation, values: dict[int, np.ndarray]) -> Round:
    """Run a round by hand; what is kept is the work of the last one to take each step."""
    done, aggregator = Round(), simulation.aggregator
    assert aggregator is not None
    outputs: list[Output] = []

    def on_the_wire(message: Message) -> None:
        done.lengths[type(message)] = len(codec.encode(message))

    for send in messages(aggregator.start_round(b"", simulation.contributors)):
        simulation.contributors[send.receiver].receive(SERVER, send.message)
    for index, contributor in simulation.contributors.items():
        with counted() as done.steps["encrypt"]:
            payload = contributor.encrypt(values[index])
        message = messages(contributor.contribute(aggregator.round, payload))[0].message
        on_the_wire(message)
        step = "add" if index < N else "close"
        outputs = measured(done, step, partial(aggregator.receive, index, message))
    for request in messages(outputs):
        decryptor = simulation.decryptors[request.receiver]
        on_the_wire(request.message)
        answer = measured(done, "share", partial(decryptor.receive, SERVER, request.message))
        share = messages(answer)[0].message
        on_the_wire(share)
        receive = partial(aggregator.receive, request.receiver, share)
        outputs = measured(done, "recover", receive)
    summed = next(output for output in outputs if isinstance(output, Summed))
    assert np.array_equal(summed.total, sum(values.values()))
    for send in messages(outputs):
        simulation.contributors[send.receiver].receive(SERVER, send.message)
    return done


@cache
def reference() -> Round:
    """Return the second round: what every round after it does too."""
    simulation = Simulation(N, T, CNN, label="work")
    simulation.run_setup()
    values = simulation.random_updates()
    one_round(simulation, values)
    return one_round(simulation, values)


@pytest.mark.parametrize(
    ("step", "forward", "inverse"),
    [
        # The key; six limbs of three bodies. u; three limbs of c0 and of c1.
        ("encrypt", 1 + 1, 6 * 3 + 3 * 2),
        ("add", 0, 0),
        ("close", 0, 0),
        # Six 16-bit digits of c1; eleven of the product.
        ("share", 6, 11),
        ("recover", 1, 6 * 3),
    ],
)
def test_transforms(step: str, forward: int, inverse: int) -> None:
    work = reference().steps[step]
    assert (work.forward, work.inverse) == (forward, inverse)


@pytest.mark.parametrize(
    ("step", "drawn"),
    [("encrypt", 621_392), ("add", 0), ("close", 0), ("share", 344_064), ("recover", 0)],
)
def test_random_bytes(step: str, drawn: int) -> None:
    assert reference().steps[step].random == drawn


@pytest.mark.parametrize(
    ("kind", "length"),
    [(Contribution, 579_943), (DecryptionRequest, 49_221), (DecryptionShare, 20_522)],
)
def test_bytes_on_the_wire(kind: type[Any], length: int) -> None:
    assert reference().lengths[kind] == length


@pytest.mark.parametrize(
    ("step", "limit"),
    [("encrypt", 3.5), ("add", 1.35), ("close", 1.45), ("share", 1.65), ("recover", 4.5)],
)
def test_memory(step: str, limit: float) -> None:
    assert reference().steps[step].peak < limit * MEBI
