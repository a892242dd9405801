"""What the fuzzers share: how many inputs, how bytes and messages are damaged, memory.

Every input comes from its own generator, seeded with a name and a number, so one that fails can
be made again alone. `MPHE_FUZZ=1000000` sets the number of inputs of each fuzzer,
`MPHE_FUZZ_SECONDS=60` ends those that are slow.
"""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from random import Random
from typing import Any

from mphe.wire.messages import Message
from tests.protocol.support import SAMPLES

SMALL_MESSAGES: tuple[Message, ...] = tuple(SAMPLES.values())
"""One of each kind, short enough for a million rounds."""

EDGES = (0, 1, 2, 3, 4, 5, 50, 51, 99, 1 << 16, 1 << 31, 1 << 32, (1 << 53) - 1)

CLAIMS = (
    b"\xdd\xff\xff\xff\xff",  # list of 2^32 - 1
    b"\xdc\xff\xff",
    b"\xdf\xff\xff\xff\xff",  # map
    b"\xc6\xff\xff\xff\xff",  # bytes
    b"\xc5\xff\xff",
    b"\xdb\xff\xff\xff\xff",  # text
    b"\xc9\xff\xff\xff\xff\x01",  # extension
    b"\xd8\xff" + bytes(16),
    b"\xd7\xff" + bytes(8),  # time stamp
    b"\xcb\x7f\xf8\0\0\0\0\0\0",  # NaN
    b"\xca\x7f\x80\0\0",  # infinity
    b"\xd3\x80\0\0\0\0\0\0\0",  # -2^63
    b"\xcf" + b"\xff" * 8,
    b"\xc0",
    b"\xc1",
    b"\xc2",
    b"\x80",
    b"\x90",
    b"\x91" * 600,
)
"""Headers of msgpack that claim too much, and values that no message has."""


def inputs(name: str, default: int) -> Iterator[tuple[int, Random]]:
    """Yield numbered generators, and print how many there were."""
    count = int(os.environ.get("MPHE_FUZZ", default))
    seconds = float(os.environ.get("MPHE_FUZZ_SECONDS", "inf"))
    end, done = time.monotonic() + seconds, 0
    while done < count and time.monotonic() < end:
        yield done, Random(f"{name}/{done}")
        done += 1
    print(f"{name}: {done} inputs")


def damage(data: bytes, rng: Random, pool: Sequence[bytes]) -> bytes:
    """Return bytes with one to four things wrong; rarely something else altogether."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(200))
    for _ in range(rng.randint(1, 4)):
        data = rng.choice(_DAMAGES)(data, rng, pool)
    return data


def _flip(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    # Headers stand in front and break more.
    at = rng.randrange(min(len(data), rng.choice((4, len(data)))))
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def _truncate(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _insert(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(CLAIMS) + data[at:]


def _overwrite(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    at, claim = rng.randrange(len(data) + 1), rng.choice(CLAIMS)
    return data[:at] + claim + data[at + len(claim) :]


def _repeat(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:end] * rng.randint(1, 3) + data[end:]


def _cut_out(data: bytes, rng: Random, _: Sequence[bytes]) -> bytes:
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + data[end:]


def _splice(data: bytes, rng: Random, pool: Sequence[bytes]) -> bytes:
    other = rng.choice(pool)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _append(data: bytes, rng: Random, pool: Sequence[bytes]) -> bytes:
    return data + (rng.choice(pool) if rng.random() < 0.5 else rng.randbytes(rng.randint(1, 9)))


_DAMAGES: tuple[Callable[[bytes, Random, Sequence[bytes]], bytes], ...] = (
    _flip,
    _flip,
    _flip,
    _truncate,
    _insert,
    _overwrite,
    _repeat,
    _cut_out,
    _splice,
    _append,
)


def alter(value: Any, rng: Random) -> Any:
    """Return a message, record, list or field with one thing changed, of the same type."""
    if is_dataclass(value) and not isinstance(value, type):
        name = rng.choice(fields(value)).name
        return replace(value, **{name: alter(getattr(value, name), rng)})
    if isinstance(value, tuple):
        return _alter_list(value, rng)
    if isinstance(value, bytes):
        return _alter_bytes(value, rng)
    if isinstance(value, int):
        return rng.choice((rng.choice(EDGES), 1 << 40, value + 1, max(0, value - 1)))
    return rng.choice(("", "ü" * 1000, value + value, value[1:]))


def _alter_list(items: tuple[Any, ...], rng: Random) -> tuple[Any, ...]:
    if not items:
        return items
    at = rng.randrange(len(items))
    changed = list(items)
    changed[at] = alter(items[at], rng)
    return rng.choice(
        (
            (),
            items[::-1],
            items[:at] + items[at + 1 :],
            items[: at + 1] + items[at:],
            items * 20,
            tuple(changed),
            tuple(changed),
        )
    )


def _alter_bytes(data: bytes, rng: Random) -> bytes:
    kind = rng.randrange(8)
    if kind < 3:
        return _flip(data, rng, ())
    return (
        b"",
        data[:-1],
        data + b"\0",
        bytes(len(data)),
        b"\xff" * len(data),
    )[kind - 3]


@contextmanager
def traced() -> Iterator[None]:
    """Trace memory inside of the block."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def peak_of(call: Callable[[], Any]) -> tuple[Any, int]:
    """Return what a call returns, and the most bytes that it held beyond those before it."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    result = call()
    return result, tracemalloc.get_traced_memory()[1] - before
