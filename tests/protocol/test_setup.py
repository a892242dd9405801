"""Key set-up: what comes out of it, and who learns of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from mphe.arithmetic.ring import Small
from mphe.roles.setup.client import Opened
from mphe.scheme import rlwe, sealing, sharing
from mphe.scheme.rlwe import KeyShare
from mphe.wire import codec
from mphe.wire.messages import Reveal
from tests.protocol.support import done
from tests.simulation import SeededSource, Simulation


@pytest.mark.parametrize(("n", "t"), [(2, 2), (3, 2), (5, 3)])
def test_any_t_shares_give_the_sum_of_all_secrets(n: int, t: int) -> None:
    simulation = Simulation(n, t)
    done(simulation)
    secrets = sum(share.secret for share in simulation.key_shares.values())
    shares = {i: keys.share for i, keys in simulation.keys.items() if keys.share is not None}
    scheme = sharing.sharing_of(simulation.parameters, simulation.ring)
    for chosen in combinations(range(1, n + 1), t):
        got = sharing.reconstruct(scheme, {i: shares[i] for i in chosen})
        assert np.array_equal(got, simulation.ring.from_small(Small(np.asarray(secrets))))


def test_all_parties_agree_on_the_transcript_and_the_key() -> None:
    simulation = Simulation(3, 2)
    end = done(simulation)
    key_shares = [share.public for share in simulation.key_shares.values()]
    expected = rlwe.aggregate_shares(simulation.ring, key_shares)
    for keys in simulation.keys.values():
        assert keys.transcript == end.session.transcript
        assert np.array_equal(keys.key.key, expected)
    assert simulation.keys[1].mask_keys[2] == simulation.keys[2].mask_keys[1]


def test_no_two_pairs_share_a_mask_key() -> None:
    simulation = Simulation(4, 2)
    done(simulation)
    seen = {key for keys in simulation.keys.values() for key in keys.mask_keys.values()}
    assert len(seen) == 6


def test_mask_keys_differ_between_sessions() -> None:
    first, second = (Simulation(3, 2, label=label) for label in ("a", "b"))
    assert done(first).session.transcript != done(second).session.transcript
    assert first.keys[1].mask_keys[2] != second.keys[1].mask_keys[2]


def test_without_robustness_every_client_keeps_its_own_secret() -> None:
    simulation = Simulation(3, 3, robust=False)
    assert done(simulation).session.decryptors == (1, 2, 3)
    for index in simulation.clients:
        share = simulation.keys[index].share
        assert share is not None
        assert np.array_equal(
            share, simulation.ring.from_small(simulation.key_shares[index].secret)
        )
    reveals = [m for _, _, m in simulation.log if isinstance(m, Reveal)]
    assert {len(item.sealed) for m in reveals for item in m.shares} == {sealing.TAG_BYTES}


@pytest.mark.parametrize("k", [4, 7])
def test_sealed_parts_are_hardly_longer_than_what_they_carry(k: int) -> None:
    simulation = Simulation(k, 3)
    done(simulation)
    reveals = [m for _, _, m in simulation.log if isinstance(m, Reveal)]
    parts = [item for message in reveals for item in message.shares]
    assert len(parts) == k * (k - 1)
    share = simulation.ring.wire_length(simulation.ring.degree)
    needed = share + sealing.TAG_BYTES + sealing.ENCAPSULATION_BYTES
    # What a Reveal takes beyond its b_i, heads of msgpack and all.
    alone = [codec.encode(replace(message, shares=())) for message in reveals]
    taken = sum(len(codec.encode(m)) - len(a) for m, a in zip(reveals, alone, strict=True))
    assert taken <= 1.05 * len(parts) * needed


def test_everybody_learns_that_the_session_is_open() -> None:
    simulation = Simulation(4, 2, decryptors=3)
    assert done(simulation).session.decryptors == (1, 2, 3)
    opened = {i: e for i, e in simulation.events if isinstance(e, Opened)}
    assert opened == {i: Opened((1, 2, 3)) for i in (1, 2, 3, 4)}
    assert set(simulation.decryptors) == {1, 2, 3}


def test_secret_of_a_key_share_is_fresh_for_each_session() -> None:
    simulation = Simulation(2, 2)
    reference = rlwe.common_reference(simulation.ring, bytes(32))
    source = SeededSource("fresh")
    first, second = (rlwe.gen_share(simulation.ring, reference, source) for _ in range(2))
    assert isinstance(first, KeyShare)
    assert not np.array_equal(first.secret, second.secret)
