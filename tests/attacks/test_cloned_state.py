"""Attack: one client's state lives twice, and both copies contribute to one verified round.

Claim: a state that has contributed gives the same bytes again, whatever it is asked to encrypt, and
a store that swaps by serial number takes the state of one copy only.
Weakened: nobody stores the state, so a second copy of the state of before encrypts another update
under the c1 that was pledged, and the server reads the difference of the two.
"""

from __future__ import annotations

import numpy as np
import pytest

import mphe
from mphe.arithmetic.ring import Limbs, Ring
from mphe.scheme import packing
from mphe.scheme.decryption import read_blocks
from mphe.wire import codec
from mphe.wire.messages import Contribution
from tests.mphe.sessions import LENGTH, MODES
from tests.mphe.test_client import in_round

LARGER, SMALLER = np.full(LENGTH, 900), np.arange(LENGTH)


def contribution(step: mphe.Step) -> Contribution:
    ((_, data),) = step.mail
    message = codec.decode(data, 1)
    assert isinstance(message, Contribution)
    return message


def difference(plan: mphe.Plan, first: Contribution, second: Contribution) -> np.ndarray:
    """Return what a server computes from c0 - c0' = Δ·(x - x') + e0 - e0'."""
    ring, layout = Ring(plan.threshold.ring), plan.encryption_layout(1)
    (one,) = read_blocks(ring, plan.threshold, first.c0, plan.dropped_c0)
    (two,) = read_blocks(ring, plan.threshold, second.c0, plan.dropped_c0)
    left = Limbs(one - two)
    packing.add_half(layout, left)
    values, _ = packing.unpack(layout, ring.reduce(left))
    return packing.flatten(layout, values)


def test_two_copies_of_a_state_show_the_difference_of_their_updates() -> None:
    session, _ = in_round(MODES["verified, direct"])
    identity, state = session.identities[1], session.clients[1].state
    copies = [mphe.Client.restore(state, identity) for _ in range(2)]
    first, second = (
        contribution(copy.contribute(1, update))
        for copy, update in zip(copies, (LARGER, SMALLER), strict=True)
    )
    assert first.c1 == second.c1
    assert np.array_equal(difference(copies[0].plan, first, second), LARGER - SMALLER)


@pytest.mark.parametrize("mode", ["verified, direct", "verified", "hybrid"])
def test_one_state_gives_the_same_bytes_again(mode: str) -> None:
    session, _ = in_round(MODES[mode])
    client = session.clients[1]
    first = contribution(client.contribute(1, LARGER))
    restored = mphe.Client.restore(client.state, session.identities[1])
    for again in (client, restored):
        assert contribution(again.contribute(1, SMALLER)) == first


def test_a_store_takes_the_state_of_one_copy_only() -> None:
    session, _ = in_round(MODES["verified"])
    identity, state = session.identities[1], session.clients[1].state
    stored = [state]

    def swap(old_serial: int, new: bytes) -> bool:
        taken = mphe.serial_of(stored[-1]) == old_serial
        stored.extend([new] if taken else [])
        return taken

    took = []
    for update in (LARGER, SMALLER):
        copy = mphe.Client.restore(state, identity)
        copy.contribute(1, update)
        took.append(swap(mphe.serial_of(state), copy.state))
    assert took == [True, False]


def test_without_pledges_two_copies_are_two_independent_encryptions() -> None:
    """In the default mode nothing is drawn ahead, so even a clone shows nothing."""
    session, _ = in_round(MODES["direct"])
    state, identity = session.clients[1].state, session.identities[1]
    first, second = (
        contribution(mphe.Client.restore(state, identity).contribute(1, update))
        for update in (LARGER, SMALLER)
    )
    assert first.c1 != second.c1
    plan = session.clients[1].plan
    assert not np.array_equal(difference(plan, first, second), LARGER - SMALLER)
