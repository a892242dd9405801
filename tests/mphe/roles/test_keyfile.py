"""What a party keeps of a session: read back whole, or refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mphe.errors import EncodingError
from mphe.plan.plan import make_plan
from mphe.roles import keyfile
from mphe.roles.rounds.decryptor import Memory
from mphe.roles.setup.common import SessionKeys
from tests.simulation import Simulation

TRANSCRIPT = bytes(range(32))


@pytest.fixture(scope="module")
def dealt() -> Simulation:
    simulation = Simulation(3, 2)
    simulation.run_setup()
    return simulation


def test_keys_come_back_whole(dealt: Simulation) -> None:
    keys = dealt.keys[2]
    again = keyfile.read_keys(keyfile.write_keys(keys), dealt.plan, dealt.roster, 2)
    assert keys.share is not None and again.share is not None
    assert np.array_equal(again.share, keys.share)
    assert np.array_equal(again.key.key, keys.key.key)
    assert np.array_equal(again.key.reference, keys.key.reference)
    plain = ("index", "plan", "transcript", "crs_seed", "qualified", "mask_keys", "identities")
    assert all(getattr(again, name) == getattr(keys, name) for name in plain)


def test_a_session_comes_back_whole(dealt: Simulation) -> None:
    session = dealt.session
    again = keyfile.read_session(keyfile.write_session(session), dealt.plan, dealt.roster)
    assert np.array_equal(again.key.key, session.key.key)
    assert replace(again, key=session.key) == session


@pytest.mark.parametrize(
    "memory", [Memory(), Memory(spent=7), Memory(0, bytes(32), 3, 9, False), Memory(5, b"d" * 32)]
)
def test_a_memory_comes_back_whole(memory: Memory) -> None:
    text = keyfile.write_memory(memory, TRANSCRIPT)
    assert keyfile.read_memory(text, TRANSCRIPT) == memory
    with pytest.raises(EncodingError, match="another session"):
        keyfile.read_memory(text, bytes(32))


def test_keys_without_a_share_come_back_without_one(dealt: Simulation) -> None:
    keys = replace(dealt.keys[1], share=None, mask_keys={})
    again = keyfile.read_keys(keyfile.write_keys(keys), dealt.plan, dealt.roster, 1)
    assert again.share is None and again.mask_keys == {}
    with pytest.raises(EncodingError, match="mask keys"):
        both = keyfile.write_keys(replace(dealt.keys[1], share=None))
        keyfile.read_keys(both, dealt.plan, dealt.roster, 1)


def test_foreign_keys_are_refused(dealt: Simulation) -> None:
    text = keyfile.write_keys(dealt.keys[2])
    with pytest.raises(EncodingError, match="another client"):
        keyfile.read_keys(text, dealt.plan, dealt.roster, 1)
    with pytest.raises(EncodingError, match="other flags"):
        other = make_plan(replace(dealt.parameters, rounds=51))
        keyfile.read_keys(text, other, dealt.roster, 2)
    with pytest.raises(EncodingError, match="another roster"):
        keyfile.read_keys(text, dealt.plan, dealt.roster | {1: dealt.roster[2]}, 2)
    with pytest.raises(EncodingError, match="other flags"):
        other = make_plan(replace(dealt.parameters, max_attempts=5))
        keyfile.read_session(keyfile.write_session(dealt.session), other, dealt.roster)


FLAWS = {
    "short name": {"transcript": b"T"},
    "short seed": {"crs_seed": b""},
    "unsorted": {"qualified": (2, 1, 3)},
    "a stranger": {"qualified": (1, 2, 9)},
    "not in the key": {"qualified": (1, 3)},
    "a mask key missing": {"mask_keys": {1: bytes(32)}},
    "a mask key of its own": {"mask_keys": {1: bytes(32), 2: bytes(32), 3: bytes(32)}},
    "a short mask key": {"mask_keys": {1: bytes(32), 3: b""}},
}


@pytest.mark.parametrize("flaw", FLAWS.values(), ids=FLAWS)
def test_flawed_keys_are_refused(dealt: Simulation, flaw: dict[str, object]) -> None:
    keys: SessionKeys = replace(dealt.keys[2], **flaw)  # type: ignore[arg-type]
    with pytest.raises(EncodingError):
        keyfile.read_keys(keyfile.write_keys(keys), dealt.plan, dealt.roster, 2)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_truncated_bytes_are_refused(dealt: Simulation, data: st.DataObject) -> None:
    text = keyfile.write_keys(dealt.keys[2])
    end = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(EncodingError):
        keyfile.read_keys(text[:end], dealt.plan, dealt.roster, 2)
    with pytest.raises(EncodingError):
        keyfile.read_keys(text + text[:1], dealt.plan, dealt.roster, 2)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_other_bytes_are_refused(text: bytes) -> None:
    with pytest.raises(EncodingError):
        keyfile.read_memory(text, TRANSCRIPT)
