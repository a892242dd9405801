"""No client may choose its b_i after seeing the others.

Attack: the last client, helped by a server that shows it the others' b_j first, publishes
b_i = own - Σ others. The collective key is then `own`, and its owner decrypts every contribution
alone. Claim: b_i is bound by a commitment that precedes every reveal.
Weakened: key shares are signed, but nothing was committed to.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mphe.arithmetic.ring import Integers, Limbs
from mphe.errors import RemoteProtocolError
from mphe.roles.setup import common as setup
from mphe.roles.setup.common import Identities
from mphe.scheme import packing, rlwe, sealing
from mphe.wire.messages import Commitments, KeyReveal, Message, Qualified
from tests.simulation import Simulation

ROGUE, VICTIM = 3, 1


def insecure_check_reveal(
    identities: Identities, session: bytes, commitment: bytes, reveal: KeyReveal, sender: int
) -> None:
    """Check the signature and forget the commitment."""
    identity = identities.get(reveal.index, b"")
    if not sealing.verify(
        identity, reveal.signature, "reveal", *setup.reveal_parts(session, reveal)
    ):
        raise RemoteProtocolError(sender, "not signed")


def attack() -> Simulation:
    """Run a set-up in which the server replaces the rogue's b_i on its way to the victim."""
    simulation = Simulation(3, 2, encryption="direct")
    ring = simulation.ring

    def tamper(sender: int, receiver: int, message: Message) -> list[Message]:
        if not isinstance(message, Qualified) or receiver != VICTIM:
            return [message]
        others = [r for r in message.reveals if r.index != ROGUE]
        total: Integers = simulation.key_shares[ROGUE].public.copy()
        for reveal in others:
            total = total - ring.from_bytes(reveal.key_share, ring.degree)
        chosen = replace(others[0], index=ROGUE, key_share=ring.to_bytes(ring.reduce(Limbs(total))))
        parts = setup.reveal_parts(simulation.names[ROGUE], chosen)
        signature = sealing.sign(simulation.identities[ROGUE], "reveal", *parts)
        forged = replace(message, reveals=(*others, replace(chosen, signature=signature)))
        return [forged]

    simulation.intercept = tamper
    simulation.run_setup()
    return simulation


def decrypt_alone(simulation: Simulation, update: Integers) -> Integers:
    """Return what the rogue reads from the victim's contribution with its own secret only."""
    ring, layout = simulation.ring, simulation.plan.threshold
    sent = simulation.encrypted(VICTIM, update)
    c1 = ring.from_bytes(sent.c1, ring.degree)
    secret = simulation.key_shares[ROGUE].secret
    product = ring.multiply_small(
        ring.transform(secret), ring.spectrum(c1, rlwe.ternary_width(ring))
    )[:, : layout.coefficients]
    opened = ring.from_bytes(sent.c0, layout.coefficients, simulation.plan.dropped_c0) - product
    packing.add_half(layout, Limbs(opened))
    values, _ = packing.unpack(layout, ring.reduce(Limbs(opened)))
    return packing.flatten(layout, values)


def test_rogue_key_decrypts_alone_when_nothing_was_committed_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(setup, "check_reveal", insecure_check_reveal)
    simulation = attack()
    own = simulation.key_shares[ROGUE].public
    assert np.array_equal(simulation.keys[VICTIM].key.key, own)
    update = simulation.random_updates()[VICTIM]
    assert np.array_equal(decrypt_alone(simulation, update), update)


def test_rogue_key_is_refused_by_the_victim() -> None:
    simulation = attack()
    assert VICTIM not in simulation.keys
    reasons = [error.reason for party, error in simulation.refusals if party == VICTIM]
    assert reasons == [f"the key share of client {ROGUE} is not the one it committed to"]


def test_one_client_alone_does_not_decrypt_under_the_honest_key() -> None:
    simulation = Simulation(3, 2, encryption="direct")
    simulation.run_setup()
    update = simulation.random_updates()[VICTIM]
    assert np.mean(decrypt_alone(simulation, update) == update) < 0.1


def test_no_key_share_is_sent_before_every_commitment_is_listed() -> None:
    simulation = Simulation(4, 2)
    simulation.run_setup()
    kinds = [type(m).__name__ for _, _, m in simulation.log]
    assert kinds.index("Reveal") > kinds.index("Commitments")
    lists = {m.commits for _, _, m in simulation.log if isinstance(m, Commitments)}
    assert [len(listed) for listed in lists] == [4]
    last_commit = len(kinds) - 1 - kinds[::-1].index("Commit")
    assert last_commit < kinds.index("Commitments")
