"""A server that relays Shamir shares must not be able to put a client's key together.

Claim: the server sees ChaCha20-Poly1305 ciphertexts under keys that it does not have.
Weakened: shares are relayed in clear, as in a system whose only protection
is the link to the server; t of them give s_i.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mphe.arithmetic.ring import Element, Small
from mphe.errors import EncodingError
from mphe.roles.setup import client
from mphe.scheme import sharing
from mphe.scheme.sealing import Encapsulated, PairwiseKeys
from mphe.wire.messages import SERVER, Commitments, JoinList, Reveal, SealedShare
from tests.simulation import SeededSource, Simulation

VICTIM = 2
TAG = 16


class insecure_PairwiseKeys(PairwiseKeys):
    """Relays shares in clear."""

    def seal(self, peer_public: bytes, session: bytes, text: bytes, shared: Encapsulated) -> bytes:
        """Return the text itself."""
        return text

    def open(
        self, peer_public: bytes, session: bytes, sealed: bytes, shared: Encapsulated
    ) -> bytes:
        """Return the text itself."""
        return sealed


def relayed(simulation: Simulation) -> dict[int, SealedShare]:
    """Return what the server relays from the victim, by receiver."""
    (reveal,) = [m for s, _, m in simulation.log if isinstance(m, Reveal) and s == VICTIM]
    return {item.peer: item for item in reveal.shares}


def rebuild(simulation: Simulation) -> Element:
    """Return what the server makes of the first t relayed shares."""
    ring, width = simulation.ring, simulation.ring.wire_length(4096)
    chosen = sorted(relayed(simulation).items())[: simulation.parameters.threshold]
    shares = {peer: ring.from_bytes(item.sealed[:width], 4096) for peer, item in chosen}
    return sharing.reconstruct(sharing.sharing_of(simulation.parameters, ring), shares)


def victims_secret(simulation: Simulation) -> Small:
    """Return what must stay secret."""
    return simulation.key_shares[VICTIM].secret


def test_curious_server_rebuilds_the_key_from_shares_in_clear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "PairwiseKeys", insecure_PairwiseKeys)
    simulation = Simulation(4, 2)
    simulation.run_setup()
    expected = simulation.ring.from_small(victims_secret(simulation))
    assert np.array_equal(rebuild(simulation), expected)


def test_curious_server_rebuilds_nothing_from_sealed_shares() -> None:
    simulation = Simulation(4, 2)
    simulation.run_setup()
    expected = simulation.ring.from_small(victims_secret(simulation))
    rebuilt = rebuild(simulation)
    # Limb by limb, what agrees agrees by chance (never, at 32 bits).
    assert np.mean(rebuilt == expected) < 0.001


def test_server_cannot_open_a_sealed_share_with_keys_of_its_own() -> None:
    simulation = Simulation(4, 2)
    simulation.run_setup()
    (roster,) = [m for _, r, m in simulation.log if isinstance(m, JoinList) and r == 1]
    victim_key = next(join.exchange_key for join in roster.joins if join.index == VICTIM)
    session = simulation.names[VICTIM]
    for index in (SERVER, 1):
        server = PairwiseKeys.generate(index, SeededSource("curious server"))
        for item in relayed(simulation).values():
            shared = server.decapsulate(VICTIM, item.encapsulation)
            with pytest.raises(EncodingError):
                server.open(victim_key, session, item.sealed, shared)


def opened(simulation: Simulation, receiver: int, item: SealedShare) -> bytes:
    """Return what a client opens of what the victim sealed."""
    stage = simulation.revealed[receiver]
    own = PairwiseKeys(receiver, stage.exchange_key, stage.encapsulation_seed)
    public = next(join.exchange_key for join in stage.joins if join.index == VICTIM)
    shared = own.decapsulate(VICTIM, item.encapsulation)
    return own.open(public, stage.session, item.sealed, shared)


def test_another_client_cannot_open_what_is_not_for_it() -> None:
    simulation = Simulation(4, 2)
    simulation.run_setup()
    with pytest.raises(EncodingError):
        opened(simulation, 1, relayed(simulation)[3])
    opened(simulation, 1, relayed(simulation)[1])


def test_relayed_bytes_are_not_the_share_and_are_uniform() -> None:
    simulation = Simulation(4, 2)
    simulation.run_setup()
    for receiver, item in relayed(simulation).items():
        text, sealed = opened(simulation, receiver, item), item.sealed
        assert len(sealed) == len(text) + TAG
        same = np.frombuffer(sealed[:-TAG], np.uint8) == np.frombuffer(text, np.uint8)
        assert abs(np.mean(same) - 1 / 256) < 0.002
        counts = np.bincount(np.frombuffer(sealed, np.uint8), minlength=256)
        expected = len(sealed) / 256
        assert 150 < float(((counts - expected) ** 2 / expected).sum()) < 390


def test_altered_ciphertext_does_not_open() -> None:
    simulation = Simulation(3, 2)
    simulation.run_setup()
    item = relayed(simulation)[1]
    sealed = bytearray(item.sealed)
    sealed[100] ^= 1
    with pytest.raises(EncodingError):
        opened(simulation, 1, replace(item, sealed=bytes(sealed)))


def test_shares_are_sealed_only_after_the_list_of_commitments_is_complete() -> None:
    simulation = Simulation(3, 2)
    simulation.run_setup()
    kinds = [type(m) for s, r, m in simulation.log if VICTIM in (s, r)]
    assert kinds.index(Commitments) < kinds.index(Reveal)
