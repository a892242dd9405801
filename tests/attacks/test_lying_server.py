"""What a server that lies can do in the default mode: read the collective key, or one update.

The default mode is secure against a server that is curious but follows the protocol. A decryptor
cannot tell a sum of ciphertexts from anything else, so one false request, c1 = a constant above
the smudging, shows Σ h_j = constant·s + noise, and s is read off. The defence
is `--verify_aggregate`, where decryptors add up c1 themselves. This test is documentation: it has
to pass for as long as SECURITY.md says so.
"""

from __future__ import annotations

import numpy as np
import pytest

from mphe.arithmetic.ring import Element, Limbs, Small, leading
from mphe.errors import RefusedDecryption
from mphe.roles.rounds.decryptor import Decryptor
from mphe.scheme import packing
from mphe.scheme.decryption import aggregate_shares, read_blocks
from mphe.scheme.rlwe import ternary_width
from mphe.wire.messages import (
    SERVER,
    DecryptionRequest,
    DecryptionShare,
    Group,
    Message,
    SessionOpen,
)
from tests.simulation import Simulation, centred, integers, rephrased

BITS = 80
"""The constant is 2^80: above the noise (2^67), and n·2^80 stays below q/2."""


def read_key(simulation: Simulation) -> Small:
    """Return s from one request that no honest server would make."""
    ring = simulation.ring
    constant = ring.zero()
    constant[BITS // 32, 0] = 1 << BITS % 32
    everybody = tuple(simulation.identities)
    active = everybody[: simulation.parameters.threshold]
    groups = (Group(everybody, ring.to_bytes(constant)),)
    name = simulation.session.transcript
    false = DecryptionRequest(1, 1, active, groups, transcript=name)
    shares = [simulation.read_share(share) for share in simulation.ask(false).values()]
    (total,) = aggregate_shares(shares)
    opened = integers(ring.reduce(total))
    return Small(np.array([round(centred(v, ring.modulus) / 2.0**BITS) for v in opened]))


def collective_secret(simulation: Simulation) -> Small:
    """Return s = Σ s_i, which nobody should know."""
    secrets = [share.secret for share in simulation.key_shares.values()]
    total: Small = np.sum(secrets, axis=0)
    return total


@pytest.mark.parametrize(("n", "t"), [(3, 2), (5, 4)])
def test_default_mode_is_not_safe_against_a_lying_server(n: int, t: int) -> None:
    simulation = Simulation(n, t, 4096, encryption="direct")
    simulation.run_setup()
    used = simulation.plan.threshold.block_coefficients(0)
    assert used == simulation.ring.degree
    assert np.array_equal(read_key(simulation), collective_secret(simulation))


def test_the_key_so_read_decrypts_a_single_update() -> None:
    simulation = Simulation(3, 2, 4096, encryption="direct")
    simulation.run_setup()
    secret = read_key(simulation)
    ring, layout = simulation.ring, simulation.plan.threshold
    update = simulation.random_updates()[1]
    sent = simulation.contribution(1, 1, update)
    c1 = ring.spectrum(ring.from_bytes(sent.c1, ring.degree), ternary_width(ring))
    c0 = ring.from_bytes(sent.c0, ring.degree, simulation.plan.dropped_c0)
    opened = Limbs(c0 - ring.multiply_small(ring.transform(secret), c1))
    packing.add_half(layout, opened)
    values, _ = packing.unpack(layout, ring.reduce(opened))
    assert np.array_equal(packing.flatten(layout, values), update)


@pytest.mark.parametrize("encryption", ["hybrid", "direct"])
def test_default_mode_lets_a_lying_server_open_one_update(encryption: str) -> None:
    simulation = Simulation(4, 3, encryption=encryption)
    simulation.run_setup()
    update = simulation.random_updates()[1]
    victim = {1: simulation.contribution(1, 1, update)}
    # The list of contributors is false.
    false = simulation.request(victim, contributors=(1, 2, 3), active=(2, 3, 4))
    shares = [read(simulation, share) for share in simulation.ask(false).values()]
    opened = simulation.adding(victim).recover(shares, 1)
    assert opened is not None
    assert np.array_equal(opened, update)


def test_no_mode_lets_the_server_choose_what_confirms_the_key() -> None:
    simulation = Simulation(4, 3)
    simulation.intercept = before_the_end_of_the_setup
    simulation.run_setup()
    victim = {1: simulation.contribution(1, 1, simulation.random_updates()[1])}
    false = simulation.request(victim, round=0, contributors=(), active=(2, 3, 4))
    unasked = Decryptor(simulation.keys[2])
    with pytest.raises(RefusedDecryption, match="nobody chooses what confirms the key"):
        unasked.receive(SERVER, false)
    # What it does answer for follows from T.
    assert unasked.receive(SERVER, rephrased(false, c1=b""))


def before_the_end_of_the_setup(_: int, __: int, message: Message) -> list[Message]:
    """Keep from the clients that the session is open: they still confirm."""
    return [] if isinstance(message, SessionOpen) else [message]


def read(simulation: Simulation, share: DecryptionShare) -> list[Element]:
    """Return the coefficients of a share that carry the victim's contribution."""
    layout = simulation.plan.threshold_layout(share.round)
    blocks = read_blocks(simulation.ring, layout, share.share, simulation.plan.dropped_share)
    used = simulation.plan.threshold.coefficients
    return [leading(block, used) for block in blocks]
