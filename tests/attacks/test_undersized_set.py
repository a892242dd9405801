"""A request with fewer than t members in D must not be answered.

Attack: for D = {j} there is no other member, hence no mask, and the answer is s_j·c1 + noise in
the open (λ = 1). With c1 = a constant, the server reads s_j off the answers of a few rounds; t such
decryptors later it has the key. Claim: a decryptor refuses a D of fewer than t.
Weakened: D is not counted.
"""

from __future__ import annotations

import numpy as np
import pytest

from mphe.arithmetic.ring import Element, Limbs
from mphe.errors import RefusedDecryption
from mphe.roles.rounds.decryptor import Decryptor
from mphe.scheme import decryption, sharing
from mphe.wire.messages import DecryptionRequest, Group
from tests.simulation import Simulation, centred, integers

J = 2
STEP = 24
"""Bits of s_j read from one round; the noise must fit in what is left of q."""


class insecure_Decryptor(Decryptor):
    """Answers for any active set."""

    def _check_active(self, message: DecryptionRequest) -> None:
        pass


def constant(simulation: Simulation, value: int) -> bytes:
    """Return c1 = value, a constant polynomial, for each block."""
    element: Element = simulation.ring.zero()
    for limb in range(simulation.ring.limbs):
        element[limb, 0] = (value >> 32 * limb) & 0xFFFFFFFF
    return simulation.ring.to_bytes(element)


def request(simulation: Simulation, round: int, value: int) -> DecryptionRequest:
    """Return a request to J alone."""
    return asking(simulation, (J,), constant(simulation, value), round)


def asking(
    simulation: Simulation, active: tuple[int, ...], c1: bytes, round: int = 1
) -> DecryptionRequest:
    """Return a request of these decryptors."""
    name = simulation.session.transcript
    return DecryptionRequest(round, 1, active, (Group((1, 2, 3, 4), c1),), transcript=name)


def read_share_of_key(simulation: Simulation, coefficients: int) -> list[int]:
    """Return the first coefficients of s_j, from the top bits of s_j·2^(24·round)."""
    modulus = simulation.ring.modulus
    known = [0] * coefficients
    # Round r shows the top bits of (s_j - known)·2^(24·r), whose size is below q by then.
    for round in range(1, 5):
        scale = 1 << STEP * (round - 1)
        (answer,) = simulation.ask(request(simulation, round, scale)).values()
        seen = integers(Element(Limbs(simulation.read_share(answer)[0][:, :coefficients])))
        for i, value in enumerate(seen):
            rest = centred(value - known[i] * scale, modulus)
            known[i] += round_divide(rest, scale)
    return [value % modulus for value in known]


def round_divide(value: int, divisor: int) -> int:
    """Return the nearest integer to the quotient."""
    return (2 * value + divisor) // (2 * divisor)


def test_answer_for_one_decryptor_alone_reveals_its_share_of_the_key() -> None:
    simulation = Simulation(4, 2, decryptor=insecure_Decryptor)
    simulation.run_setup()
    share = simulation.keys[J].share
    assert share is not None
    assert read_share_of_key(simulation, 20) == integers(Element(Limbs(share[:, :20])))


@pytest.mark.parametrize("active", [(), (J,)])
def test_undersized_set_is_refused(active: tuple[int, ...]) -> None:
    simulation = Simulation(4, 2)
    simulation.run_setup()
    undersized = asking(simulation, active, constant(simulation, 1))
    with pytest.raises(RefusedDecryption):
        simulation.decryptors[J].receive(0, undersized)


@pytest.mark.parametrize("t", [2, 3, 4])
def test_every_size_below_t_is_refused(t: int) -> None:
    simulation = Simulation(4, t)
    simulation.run_setup()
    for size in range(1, t):
        undersized = asking(simulation, tuple(range(1, size + 1)), constant(simulation, 1))
        with pytest.raises(RefusedDecryption, match="are needed"):
            simulation.decryptors[1].receive(0, undersized)


@pytest.mark.parametrize("masked", [True, False])
def test_one_answer_of_a_full_set_is_masked(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same reading from a permitted request finds λ·s_j only if the masks are zero."""
    if not masked:
        monkeypatch.setattr(decryption, "uniform", lambda source, ring: ring.zero())
    simulation = Simulation(4, 2)
    simulation.run_setup()
    share = simulation.keys[J].share
    assert share is not None
    permitted = asking(simulation, (1, J), constant(simulation, 1))
    answer = simulation.read_share(simulation.ask(permitted)[J])[0]
    factor = sharing.lagrange_coefficient(simulation.ring.modulus, J, (1, J))
    scaled = simulation.ring.multiply_scalar(share, factor)
    hidden = simulation.ring.reduce(scaled)[:, : answer.shape[1]]
    found = np.mean((answer[-1] >> 16) == (hidden[-1] >> 16))
    assert found < 0.01 if masked else found > 0.99
