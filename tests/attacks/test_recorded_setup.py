"""Attack: who recorded a set-up breaks X25519 years later, and wants the key of that session.

Claim: with the private X25519 keys of everybody and every frame of the set-up no sealed share opens
and no key of the masks is found, since both are derived from a secret of ML-KEM-768 as well. Nor is
breaking ML-KEM-768 alone of any use.
Weakened: one of the two secrets does not enter the derivation. The other one's keys then open all
shares, any t of which are the collective secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mphe.arithmetic.ring import Small
from mphe.errors import EncodingError
from mphe.roles.setup import client
from mphe.scheme import sharing
from mphe.scheme.sealing import Encapsulated, PairwiseKeys
from mphe.wire.messages import JoinList, Qualified, SealedShare
from tests.simulation import SeededSource, Simulation


class insecure_without_kem(PairwiseKeys):
    """Derives keys from X25519 alone, as before."""

    def _derive(
        self, peer_public: bytes, salt: bytes, label: str, ends: Iterable[int], shared: Encapsulated
    ) -> bytes:
        alone = replace(shared, secret=b"")
        return super()._derive(peer_public, salt, label, ends, alone)


class insecure_without_exchange(PairwiseKeys):
    """Derives keys from ML-KEM alone."""

    def _derive(
        self, peer_public: bytes, salt: bytes, label: str, ends: Iterable[int], shared: Encapsulated
    ) -> bytes:
        alone = PairwiseKeys(self.index, bytes([8]) * 32, self.seed)
        base = X25519PrivateKey.from_private_bytes(bytes([9]) * 32).public_key()
        return PairwiseKeys._derive(alone, base.public_bytes_raw(), salt, label, ends, shared)


class Adversary:
    """Has every frame, and the private keys of one kind of all clients."""

    def __init__(self, simulation: Simulation, broken: str, keys: type[PairwiseKeys]) -> None:
        self.simulation = simulation
        (roster, *_) = [m for _, _, m in simulation.log if isinstance(m, JoinList)]
        self.public = {join.index: join.exchange_key for join in roster.joins}
        self.sealed: dict[int, tuple[SealedShare, ...]] = {
            r: m.shares for _, r, m in simulation.log if isinstance(m, Qualified)
        }
        self.session = next(iter(simulation.names.values()))
        # Of the kind that it did not break, all it has is a key of its own.
        source = SeededSource("adversary")
        self.keys = {}
        for index, stage in simulation.revealed.items():
            halves: dict[str, Any] = {"private": source.bytes(32), "seed": source.bytes(64)}
            if broken == "X25519":
                halves["private"] = stage.exchange_key
            else:
                halves["seed"] = stage.encapsulation_seed
            self.keys[index] = keys(index, **halves)

    def opened(self) -> dict[int, dict[int, bytes]]:
        """Return the texts that open, by receiver and dealer."""
        texts: dict[int, dict[int, bytes]] = {receiver: {} for receiver in self.sealed}
        for receiver, items in self.sealed.items():
            own = self.keys[receiver]
            for item in items:
                for shared in self._guesses(own, item):
                    try:
                        text = own.open(self.public[item.peer], self.session, item.sealed, shared)
                    except EncodingError:
                        continue
                    texts[receiver][item.peer] = text
        return texts

    def _guesses(self, own: PairwiseKeys, item: SealedShare) -> list[Encapsulated]:
        found = own.decapsulate(item.peer, item.encapsulation)
        return [found, *(replace(found, secret=s) for s in (b"", bytes(32), self.session))]

    def masks(self) -> set[bytes]:
        """Return what may be keys of masks."""
        name = self.simulation.session.transcript
        return {
            own.zero_share_key(self.public[item.peer], name, shared)
            for receiver, own in self.keys.items()
            for item in self.sealed[receiver]
            for shared in self._guesses(own, item)
        }

    def secret(self) -> Any:
        """Return s, from the shares that others dealt to the first t, as far as they open.

        What a dealer kept for itself was never sent; a receiver lacks it, and lower t shares of the
        other dealers' secrets are enough to know s_i of each of them.
        """
        texts, ring, session = self.opened(), self.simulation.ring, self.simulation.parameters
        scheme = sharing.sharing_of(session, ring)
        secrets = []
        for dealer in self.public:
            got = {r: texts[r][dealer] for r in texts if dealer in texts[r]}
            shares = {
                r: ring.from_bytes(got[r], ring.degree) for r in sorted(got)[: session.threshold]
            }
            if len(shares) < session.threshold:
                return None
            secrets.append(sharing.reconstruct(scheme, shares))
        return sharing.aggregate_shares(ring, secrets)


def attack(
    monkeypatch: pytest.MonkeyPatch, keys: type[PairwiseKeys], broken: str, **session: Any
) -> tuple[Adversary, int, int]:
    """Return the adversary of a recorded set-up, the shares that open and the mask keys it has."""
    monkeypatch.setattr(client, "PairwiseKeys", keys)
    simulation = (
        Simulation(4, 2, **session) if session.get("robust", True) else Simulation(4, 4, **session)
    )
    simulation.run_setup()
    adversary = Adversary(simulation, broken, keys)
    found = sum(len(texts) for texts in adversary.opened().values())
    real = {key for held in simulation.keys.values() for key in held.mask_keys.values()}
    assert len(real) == 6
    return adversary, found, len(real & adversary.masks())


@pytest.mark.parametrize("robust", [True, False])
@pytest.mark.parametrize("broken", ["X25519", "ML-KEM"])
def test_one_broken_exchange_opens_nothing(
    monkeypatch: pytest.MonkeyPatch, broken: str, robust: bool
) -> None:
    adversary, opened, masks = attack(monkeypatch, PairwiseKeys, broken, robust=robust)
    assert (opened, masks) == (0, 0)
    assert not robust or adversary.secret() is None


@pytest.mark.parametrize(
    ("keys", "broken"), [(insecure_without_kem, "X25519"), (insecure_without_exchange, "ML-KEM")]
)
def test_where_one_exchange_is_all_that_there_is_breaking_it_opens_everything(
    monkeypatch: pytest.MonkeyPatch, keys: type[PairwiseKeys], broken: str
) -> None:
    adversary, opened, masks = attack(monkeypatch, keys, broken)
    assert (opened, masks) == (12, 6)
    simulation = adversary.simulation
    total = sum(share.secret for share in simulation.key_shares.values())
    expected = simulation.ring.from_small(Small(np.asarray(total)))
    assert np.array_equal(adversary.secret(), expected)


def test_each_weakened_exchange_withstands_the_other_s_fall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert attack(monkeypatch, insecure_without_kem, "ML-KEM")[1:] == (0, 0)
    assert attack(monkeypatch, insecure_without_exchange, "X25519")[1:] == (0, 0)
