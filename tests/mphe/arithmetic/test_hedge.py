"""mphe.arithmetic.hedge: whatever differs, the stream differs."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest

from mphe.arithmetic.hedge import Hedge, values_digest
from mphe.arithmetic.sampling import RandomSource, derive_seed
from mphe.arithmetic.system import System
from tests.support import SeededSystem


class Broken(System):
    """A machine whose randomness has failed."""

    def __init__(self, process: int = 1) -> None:
        self._process = process

    def urandom(self, count: int) -> bytes:
        return bytes(count)

    def process(self) -> int:
        return self._process


def drawn(hedge: Hedge, purpose: str = "test", *parts: bytes) -> bytes:
    return hedge.stream(purpose, *parts).bytes(32)


def test_the_seed_is_the_hash_of_the_key_the_life_and_the_purpose() -> None:
    system, fresh = SeededSystem("hedge"), SeededSystem("hedge").urandom(32)
    seed = derive_seed("hedge/test", b"k" * 32, fresh, (1).to_bytes(8, "big"), b"a", b"b")
    hedge = Hedge(b"k" * 32, system)
    assert drawn(hedge, "test", b"a", b"b") == RandomSource(seed).bytes(32)


def test_the_same_purpose_is_drawn_anew_each_time() -> None:
    hedge = Hedge.fresh()
    assert len({drawn(hedge) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "other",
    [
        drawn(Hedge(bytes(32), Broken()), "other", b"a", b"b"),
        drawn(Hedge(b"k" * 32, Broken()), "test", b"a", b"b"),
        drawn(Hedge(bytes(32), Broken(2)), "test", b"a", b"b"),
        drawn(Hedge(bytes(32), SeededSystem("x")), "test", b"a", b"b"),
        drawn(Hedge(bytes(32), Broken()), "test", b"ab", b""),
        drawn(Hedge(bytes(32), Broken()), "test", b"a", b"c"),
    ],
    ids=["purpose", "key", "process", "randomness", "cut", "part"],
)
def test_each_input_enters(other: bytes) -> None:
    first, again = (drawn(Hedge(bytes(32), Broken()), "test", b"a", b"b") for _ in range(2))
    assert first == again != other


def test_the_system_is_that_of_this_process() -> None:
    system = System()
    assert system.process() == os.getpid()
    assert len({system.urandom(32) for _ in range(20)}) == 20
    assert len(Hedge.fresh().key) == 32 and Hedge.fresh().key != Hedge.fresh().key


def test_small_integers_are_hashed_as_16_bits_and_all_else_as_it_is() -> None:
    for kind in (np.int32, np.int64, np.uint16):
        small = np.array([0, 1, 65535], kind)
        assert values_digest(small) == hashlib.sha256(b"\0\0\1\0\xff\xff").digest()
    large = np.array([0, 65536], np.int64)
    assert values_digest(large) == hashlib.sha256(large.tobytes()).digest()
    floats = np.array([0.5, -1.0], np.float32)
    assert values_digest(floats) == hashlib.sha256(floats.tobytes()).digest()
    assert values_digest(np.empty(0, np.int64)) == hashlib.sha256(b"").digest()


def test_every_value_enters_the_digest() -> None:
    values = np.arange(1000)
    digests = {values_digest(values)}
    for position in range(0, 1000, 37):
        changed = values.copy()
        changed[position] += 1
        digests.add(values_digest(changed))
    assert len(digests) == 29
