"""A decryptor must not go back to a round that is over.

Attack: the server keeps the ciphertexts of round 1, waits for round 2, then asks for another
subset of round 1; the difference to the sum that it has is one client's update. Replaying an
answered request with new attempts, besides, lets it average the smudging away. Claim: rounds only
go forward, attempts are bounded, an exact repeat gets the cached bytes (docs/protocol.md, A round).
Weakened: "one aggregate" is remembered for the current round only, and attempts are not bounded.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mphe.errors import RefusedDecryption
from mphe.roles.rounds.decryptor import Decryptor
from mphe.scheme.decryption import Request, aggregate_shares
from mphe.wire.messages import Contribution, DecryptionRequest
from tests.simulation import Simulation, centred, integers

VICTIM = 4


class insecure_Decryptor(Decryptor):
    """Refuses a second aggregate of the last round, and nothing else."""

    def _check_attempt(self, message: DecryptionRequest) -> None:
        pass

    def _check_freshness(self, request: Request) -> None:
        if request.round == self._last.round and request.aggregate != self._last.digest:
            raise RefusedDecryption(0, "another aggregate of this round")


def two_rounds(decryptor: type[Decryptor]) -> tuple[Simulation, dict[int, dict[int, Contribution]]]:
    """Return a simulation in which rounds 1 and 2 were decrypted, and their contributions."""
    simulation = Simulation(4, 2, decryptor=decryptor)
    simulation.run_setup()
    made = {
        r: {
            i: simulation.contribution(i, r, u)
            for i, u in simulation.random_updates(seed=r).items()
        }
        for r in (1, 2)
    }
    for round in (1, 2):
        total = simulation.decrypt(made[round], simulation.request(made[round], round=round))
        expected = sum(simulation.random_updates(seed=round).values())
        assert total is not None and np.array_equal(total, expected)
    return simulation, made


def test_replayed_round_isolates_one_client_when_only_the_last_round_is_remembered() -> None:
    simulation, made = two_rounds(insecure_Decryptor)
    updates = simulation.random_updates(seed=1)
    rest = {i: c for i, c in made[1].items() if i != VICTIM}
    without = simulation.decrypt(rest, simulation.request(rest, round=1))
    assert without is not None
    assert np.array_equal(sum(updates.values()) - without, updates[VICTIM])


@pytest.mark.parametrize("attempt", [1, 2, 4])
@pytest.mark.parametrize("left_out", [VICTIM, None])
def test_replayed_round_is_refused(attempt: int, left_out: int | None) -> None:
    simulation, made = two_rounds(Decryptor)
    subset = {i: c for i, c in made[1].items() if i != left_out}
    with pytest.raises(RefusedDecryption, match="not newer"):
        simulation.ask(simulation.request(subset, round=1, attempt=attempt))


def spread(simulation: Simulation, request: DecryptionRequest, repeats: int) -> float:
    """Return the deviation, in σ, of the mean of so many answers from the mean of as many others.

    The secret part cancels; what stays is the smudging that the server has not averaged away.
    """
    means = []
    for half in range(2):
        sums: list[list[int]] = []
        for repeat in range(repeats):
            attempt = 1 + half * repeats + repeat
            shares = simulation.ask(replace(request, attempt=attempt))
            blocks = aggregate_shares([simulation.read_share(s) for s in shares.values()])
            sums.append(integers(simulation.ring.reduce(blocks[0])))
        first, modulus = sums[0], simulation.ring.modulus
        above = [sum(centred(s[i] - first[i], modulus) for s in sums) for i in range(len(first))]
        means.append((first, above))
    (base, left), (other, right) = means
    modulus = simulation.ring.modulus
    differences = [
        centred(o - b, modulus) + (r - f) / repeats
        for b, f, o, r in zip(base, left, other, right, strict=True)
    ]
    return float(np.std(differences) / simulation.plan.smudging)


def small_request(simulation: Simulation) -> DecryptionRequest:
    """Return a request of a round that nobody has asked for."""
    made = {i: simulation.contribution(i, 3, u) for i, u in simulation.random_updates().items()}
    return simulation.request(made, round=3)


def test_unbounded_attempts_average_the_smudging_away() -> None:
    simulation, _ = two_rounds(insecure_Decryptor)
    request = small_request(simulation)
    # Two decryptors, two means: sqrt(4 / repeats).
    assert abs(spread(simulation, request, 1) - 2.0) < 0.2
    assert abs(spread(simulation, request, 16) - 0.5) < 0.1


def test_attempts_are_bounded_so_smudging_cannot_be_averaged_away() -> None:
    simulation, _ = two_rounds(Decryptor)
    with pytest.raises(RefusedDecryption, match="at most 8"):
        spread(simulation, small_request(simulation), 16)


def test_exact_repeat_yields_nothing_to_average() -> None:
    simulation, _ = two_rounds(Decryptor)
    request = small_request(simulation)
    first = simulation.ask(request)
    assert all(simulation.ask(request) == first for _ in range(5))
