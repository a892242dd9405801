"""Different active sets for different decryptors of one attempt must yield noise only.

Attack: on the path 1 - 2 - 3 with t = 2 the server tells 1 that D = {1,2}, 2 that D = {1,2,3} and
3 that D = {2,3}. Each pair lists each other or neither does, so masks that depend on the pair but
not on D cancel in the sum, which then is a combination Σ λ_j(D_j)·s_j·c1 that no honest attempt
ever shows (here -3·s - 10·A for s_j = s + j·A). Claim: D enters the masks, so the sum is
uniform. Weakened: masks without D.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mphe.arithmetic.ring import Element, Limbs, leading
from mphe.arithmetic.sampling import derive_seed
from mphe.scheme import sharing
from mphe.scheme.decryption import Request
from mphe.wire.messages import DecryptionShare
from tests.simulation import Simulation, centred, integers, only_group

TOLD = {1: (1, 2), 2: (1, 2, 3), 3: (2, 3)}


def insecure_label_without_active_set(self: Request) -> bytes:
    """Separate the masks by everything but D."""
    return derive_seed("request", self.aggregate, self.attempt.to_bytes(8, "big"))


def answers_to(told: dict[int, tuple[int, ...]]) -> tuple[Simulation, Element, list[int]]:
    """Return the sum of the answers, and its distance to Σ λ_j(D_j)·s_j·c1 at each coefficient."""
    simulation = Simulation(3, 2)
    simulation.run_setup()
    ring, updates = simulation.ring, simulation.random_updates()
    made = {i: simulation.contribution(i, 1, u) for i, u in updates.items()}
    honest = simulation.request(made)
    c1 = ring.spectrum(ring.from_bytes(only_group(honest).c1, ring.degree), 16)
    total, expected = Limbs(ring.zero()), Limbs(ring.zero())
    for index, active in told.items():
        (output,) = simulation.decryptors[index].receive(0, replace(honest, active=active))
        share = output.message  # type: ignore[union-attr]
        assert isinstance(share, DecryptionShare)
        block = simulation.read_share(share)[0]
        total[:, : block.shape[1]] += block
        secret = simulation.keys[index].share
        assert secret is not None
        factor = sharing.lagrange_coefficient(ring.modulus, index, active)
        scaled = ring.spectrum(ring.multiply_scalar(secret, factor), 16)
        expected += ring.multiply(scaled, c1)
    used = block.shape[1]
    answered = leading(ring.reduce(total), used)
    difference = ring.reduce(Limbs(answered - ring.reduce(expected)[:, :used]))
    return simulation, answered, [centred(v, ring.modulus) for v in integers(difference)]


def largest_noise(simulation: Simulation) -> float:
    """Return what the smudging and dropped bytes of three answers stay below."""
    return 15 * 3**0.5 * simulation.plan.smudging + 3 * 2.0 ** (8 * simulation.plan.dropped_share)


def test_without_d_in_the_masks_equivocation_yields_a_new_combination_of_shares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Request, "label", property(insecure_label_without_active_set))
    simulation, _, distances = answers_to(TOLD)
    assert max(map(abs, distances)) < largest_noise(simulation)


def test_equivocation_yields_uniform_noise_only() -> None:
    simulation, total, distances = answers_to(TOLD)
    modulus = simulation.ring.modulus
    # Of a uniform distance, 2·bound/q would lie within the bound: none here.
    assert min(map(abs, distances)) > largest_noise(simulation)
    assert abs(np.mean([abs(d) / modulus for d in distances]) - 0.25) < 0.02
    counts = np.bincount(total[-1] >> 27, minlength=32)
    chi_square = float(((counts - counts.sum() / 32) ** 2 / (counts.sum() / 32)).sum())
    # 31 degrees of freedom.
    assert 8 < chi_square < 80


@pytest.mark.parametrize("active", [(1, 2), (1, 2, 3)])
def test_same_set_for_all_yields_the_secret_times_c1(active: tuple[int, ...]) -> None:
    simulation, _, distances = answers_to(dict.fromkeys(active, active))
    assert max(map(abs, distances)) < largest_noise(simulation)


def test_answers_of_an_incomplete_set_are_uniform() -> None:
    simulation, _, distances = answers_to({1: (1, 2, 3), 2: (1, 2, 3)})
    assert min(map(abs, distances)) > largest_noise(simulation)
