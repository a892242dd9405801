"""Shares of the key that do not open or do not fit, and the confirmation that finds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mphe.arithmetic.ring import Element, Limbs, Small
from mphe.roles.machine import Output
from mphe.roles.rounds.outcomes import Summed
from mphe.roles.setup.client import Committed, Revealed, SetupClient
from mphe.scheme.sealing import Encapsulated, PairwiseKeys
from mphe.wire.messages import DecryptionRequest, Qualified, Ready, SealedShare
from tests.protocol.support import done, failed
from tests.simulation import Simulation, altering

# -- sealed shares ---------------------------------------------------------------------------------


def relaying(change: Callable[[tuple[SealedShare, ...]], tuple[SealedShare, ...]]) -> Simulation:
    """Return a simulation whose server changes the sealed shares on their way to client 1."""
    simulation = Simulation(4, 2)
    simulation.intercept = altering(
        Qualified, lambda m: replace(m, shares=change(m.shares)), receiver=1
    )
    return simulation


@pytest.mark.parametrize(
    ("change", "unopened"),
    [
        (lambda s: (replace(s[1], peer=2), replace(s[0], peer=3), s[2]), (2, 3)),
        (lambda s: (replace(s[0], encapsulation=bytes(1088)), *s[1:]), (2,)),
        (lambda s: (s[0], replace(s[1], encapsulation=b""), s[2]), (3,)),
        (lambda s: (replace(s[0], encapsulation=s[1].encapsulation), *s[1:]), (2,)),
        (lambda s: (replace(s[0], sealed=s[0].sealed[:-1] + b"\0"), *s[1:]), (2,)),
        (lambda s: (replace(s[0], sealed=b""), *s[1:]), (2,)),
        (lambda s: s[:2], (4,)),
        (lambda s: (), (2, 3, 4)),
    ],
)
def test_sealed_share_that_does_not_open_is_named_and_costs_a_decryptor(
    change: Callable[[tuple[SealedShare, ...]], tuple[SealedShare, ...]],
    unopened: tuple[int, ...],
) -> None:
    simulation = relaying(change)
    end = done(simulation)
    assert simulation.keys[1].share is None
    readies = {s: m.unopened for s, _, m in simulation.log if isinstance(m, Ready)}
    assert readies == {1: unopened, 2: (), 3: (), 4: ()}
    assert end.session.decryptors == (2, 3, 4)
    updates = simulation.random_updates()
    total = simulation.run_round(updates)
    assert isinstance(total, Summed) and np.array_equal(total.total, sum(updates.values()))


def test_without_robustness_a_changed_encapsulation_is_noticed_before_there_is_a_key() -> None:
    simulation = Simulation(3, 3, robust=False)
    simulation.intercept = altering(
        Qualified,
        lambda m: replace(m, shares=(replace(m.shares[0], encapsulation=bytes(1088)), m.shares[1])),
        receiver=3,
    )
    end = failed(simulation)
    assert "shares dealt by [1] did not open" in str(end.error)


class InsecureOverflowingDealer(SetupClient):
    """Seals residues that are not below q."""

    def _seal(
        self,
        stage: Committed,
        pairwise: PairwiseKeys,
        share: Element | None,
        shared: Encapsulated,
    ) -> bytes:
        text = b"\xff" * len(self.ring.to_bytes(self.ring.zero()))
        peer = next(join.exchange_key for join in stage.joins if join.index == shared.peer)
        return pairwise.seal(peer, stage.session, text, shared)


class InsecureSilentDealer(SetupClient):
    """Seals nothing of use to anybody."""

    def _seal(
        self,
        stage: Committed,
        pairwise: PairwiseKeys,
        share: Element | None,
        shared: Encapsulated,
    ) -> bytes:
        return bytes(4096 * 12 + 16)


@pytest.mark.parametrize("dealer", [InsecureOverflowingDealer, InsecureSilentDealer])
def test_dealer_of_useless_shares_is_named(dealer: type[SetupClient]) -> None:
    simulation = Simulation(4, 2, clients={3: dealer})
    end = failed(simulation)
    assert "shares dealt by [3] did not open" in str(end.error)
    assert end.error.missing == (3,)
    readies = {s: m.unopened for s, _, m in simulation.log if isinstance(m, Ready)}
    assert readies == {1: (3,), 2: (3,), 3: (), 4: (3,)}


# -- confirmation ----------------------------------------------------------------------------------


def test_each_decryptor_from_t_on_is_confirmed_with_the_first_ones() -> None:
    simulation = Simulation(5, 3)
    done(simulation)
    requests = {m for _, _, m in simulation.log if isinstance(m, DecryptionRequest)}
    assert {m.active for m in requests} == {(1, 2, 3), (1, 2, 4), (1, 2, 5)}
    assert {m.round for m in requests} == {0}


def inconsistent_for(*victims: int) -> type[SetupClient]:
    """Return a dealer whose shares for these receivers lie on no polynomial with the others."""

    class InsecureInconsistentDealer(SetupClient):
        def _seal(
            self,
            stage: Committed,
            pairwise: PairwiseKeys,
            share: Element | None,
            shared: Encapsulated,
        ) -> bytes:
            if shared.peer in victims and share is not None:
                one = self.ring.from_small(Small(np.ones(4096, np.int64)))
                share = self.ring.reduce(Limbs(share + one))
            return super()._seal(stage, pairwise, share, shared)

    return InsecureInconsistentDealer


@pytest.mark.parametrize("dealer", [1, 2])
@pytest.mark.parametrize("victim", [3, 4])
def test_decryptor_with_an_inconsistent_share_is_not_confirmed(dealer: int, victim: int) -> None:
    simulation = Simulation(4, 2, clients={dealer: inconsistent_for(victim)})
    end = done(simulation)
    assert end.session.decryptors == tuple(i for i in (1, 2, 3, 4) if i != victim)


def test_setup_fails_when_no_set_decrypts() -> None:
    simulation = Simulation(4, 3, clients={1: inconsistent_for(3, 4)})
    assert "does not decrypt" in str(failed(simulation).error)


@pytest.mark.parametrize("dealer", [1, 2])
def test_server_names_the_decryptors_that_are_not_confirmed(dealer: int) -> None:
    simulation = Simulation(5, 2, clients={dealer: inconsistent_for(3, 5)})
    end = done(simulation)
    assert end.session.decryptors == (1, 2, 4)
    assert end.unconfirmed == (3, 5)


@pytest.mark.parametrize("t", [2, 3])
@pytest.mark.parametrize("victim", [1, 2, 3])
def test_inconsistent_share_costs_its_holder_only_even_among_the_first(t: int, victim: int) -> None:
    simulation = Simulation(5, t, clients={4: inconsistent_for(victim)})
    end = done(simulation)
    assert end.unconfirmed == (victim,)
    assert end.session.decryptors == tuple(i for i in range(1, 6) if i != victim)
    updates = simulation.random_updates()
    total = simulation.run_round(updates)
    assert isinstance(total, Summed) and np.array_equal(total.total, sum(updates.values()))


def test_failed_confirmation_names_a_holder_of_an_inconsistent_share() -> None:
    simulation = Simulation(4, 2, clients={2: inconsistent_for(1, 4)})
    missing = failed(simulation).error.missing
    assert missing and set(missing) <= {1, 4}


class InsecureForgetfulClient(SetupClient):
    """Forgets its secret after having revealed b_i (without robustness it decrypts with it)."""

    def _on_qualified(self, sender: int, message: Qualified) -> list[Output]:
        self.stage = replace(self._at(Revealed), own_share=self.ring.to_bytes(self.ring.zero()))
        return super()._on_qualified(sender, message)


def test_wrong_additive_share_fails_the_confirmation() -> None:
    simulation = Simulation(3, 3, robust=False, clients={2: InsecureForgetfulClient})
    assert "does not decrypt" in str(failed(simulation).error)
