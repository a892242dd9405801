"""Key set-up: a client that forges its messages to the server, and what that costs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mphe.arithmetic.ring import Element, Ring
from mphe.errors import DuplicateMessage, MalformedMessage, RemoteProtocolError, UnexpectedSender
from mphe.roles.machine import Output
from mphe.roles.setup import common as setup
from mphe.roles.setup.client import Committed, SetupClient
from mphe.roles.setup.server import SetupState
from mphe.scheme import sealing
from mphe.scheme.rlwe import KeyShare
from mphe.wire.messages import (
    SERVER,
    Commit,
    DecryptionShare,
    Join,
    JoinList,
    Ready,
    Refusal,
    Reveal,
    SealedShare,
)
from tests.protocol.support import done, failed, server_in
from tests.simulation import Simulation, altering, snapshot


def resigned(simulation: Simulation, message: Any) -> Any:
    """Return client 3's message with a signature that fits its content."""
    identity, session = simulation.identities[3], simulation.names.get(3, b"")
    if isinstance(message, Join):
        parts = setup.join_parts(simulation.server._epoch, message)
        return replace(message, signature=sealing.sign(identity, "join", *parts))
    if isinstance(message, Commit):
        parts = setup.commit_parts(session, message)
        return replace(message, signature=sealing.sign(identity, "commit", *parts))
    parts = setup.reveal_parts(session, message)
    return replace(message, signature=sealing.sign(identity, "reveal", *parts))


def edit(reveal: Reveal, simulation: Simulation, **changes: Any) -> Reveal:
    """Return a reveal with changes to b_i's record, signed anew."""
    return replace(reveal, reveal=resigned(simulation, replace(reveal.reveal, **changes)))


Forgery = Callable[[Simulation, Any], Any]
J, C, R, Y, D = (
    SetupState.JOINING,
    SetupState.COMMITTING,
    SetupState.REVEALING,
    SetupState.READYING,
    SetupState.CONFIRMING,
)
FORGERIES: dict[str, tuple[SetupState, type[RemoteProtocolError], Forgery]] = {
    "join unsigned": (J, RemoteProtocolError, lambda s, m: replace(m, signature=bytes(64))),
    "join altered": (J, RemoteProtocolError, lambda s, m: replace(m, entropy=bytes(32))),
    "join for another": (J, UnexpectedSender, lambda s, m: replace(m, index=4)),
    "join of another epoch": (
        J,
        RemoteProtocolError,
        lambda s, m: resigned(s, replace(m, epoch=1)),
    ),
    "join without an encapsulation key": (
        J,
        RemoteProtocolError,
        lambda s, m: resigned(s, replace(m, encapsulation_key=b"")),
    ),
    "join with what is no encapsulation key": (
        J,
        RemoteProtocolError,
        lambda s, m: resigned(s, replace(m, encapsulation_key=bytes([255]) * 1184)),
    ),
    "join with another encapsulation key, not signed": (
        J,
        RemoteProtocolError,
        lambda s, m: replace(m, encapsulation_key=bytes(1184)),
    ),
    "join with a key of small order": (
        J,
        RemoteProtocolError,
        lambda s, m: resigned(s, replace(m, exchange_key=bytes(32))),
    ),
    "join with a short key": (
        J,
        RemoteProtocolError,
        lambda s, m: resigned(s, replace(m, exchange_key=bytes([9]))),
    ),
    "join with little entropy": (
        J,
        RemoteProtocolError,
        lambda s, m: resigned(s, replace(m, entropy=b"x")),
    ),
    "commit unsigned": (C, RemoteProtocolError, lambda s, m: replace(m, signature=b"")),
    "commit altered": (C, RemoteProtocolError, lambda s, m: replace(m, commitment=bytes(32))),
    "commit for another": (C, UnexpectedSender, lambda s, m: replace(m, index=1)),
    "reveal unsigned": (
        R,
        RemoteProtocolError,
        lambda s, m: replace(m, reveal=replace(m.reveal, signature=bytes(64))),
    ),
    "reveal for another": (
        R,
        UnexpectedSender,
        lambda s, m: replace(m, reveal=replace(m.reveal, index=1)),
    ),
    "reveal of another nonce": (R, RemoteProtocolError, lambda s, m: edit(m, s, nonce=bytes(32))),
    "reveal of another b": (
        R,
        RemoteProtocolError,
        lambda s, m: edit(m, s, key_share=bytes(len(m.reveal.key_share))),
    ),
    "reveal without shares": (R, MalformedMessage, lambda s, m: replace(m, shares=())),
    "reveal that lacks a share": (
        R,
        MalformedMessage,
        lambda s, m: replace(m, shares=m.shares[1:]),
    ),
    "reveal with a share twice": (
        R,
        MalformedMessage,
        lambda s, m: replace(m, shares=(*m.shares, m.shares[0])),
    ),
    "reveal with a share for itself": (
        R,
        MalformedMessage,
        lambda s, m: replace(m, shares=(*m.shares, SealedShare(3, b"", b""))),
    ),
    "reveal with a share of the wrong length": (
        R,
        MalformedMessage,
        lambda s, m: replace(m, shares=(replace(m.shares[0], sealed=b""), *m.shares[1:])),
    ),
    "reveal with an encapsulation of the wrong length": (
        R,
        MalformedMessage,
        lambda s, m: replace(m, shares=(replace(m.shares[0], encapsulation=b""), *m.shares[1:])),
    ),
    "ready unsigned": (Y, MalformedMessage, lambda s, m: replace(m, signature=bytes(64))),
    "ready about a stranger": (Y, MalformedMessage, lambda s, m: replace(m, unopened=(7,))),
    "share too short": (D, MalformedMessage, lambda s, m: replace(m, share=m.share[1:])),
    "share of another session": (
        D,
        RemoteProtocolError,
        lambda s, m: replace(m, transcript=bytes(32)),
    ),
    "refusal of another session": (
        D,
        RemoteProtocolError,
        lambda s, m: Refusal(0, m.attempt, "no", bytes(32)),
    ),
    "confirmation refused": (
        D,
        RemoteProtocolError,
        lambda s, m: Refusal(0, m.attempt, "no", m.transcript),
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_message_is_refused_and_changes_nothing(name: str) -> None:
    state, error, forge = FORGERIES[name]
    simulation, server, held = server_in(state)
    before = snapshot(server)
    with pytest.raises(error) as caught:
        server.receive(3, forge(simulation, held[0]))
    assert caught.value.sender == 3
    assert snapshot(server) == before
    server.receive(3, held[0])
    assert snapshot(server) != before


@pytest.mark.parametrize("state", [J, C, R, Y, D])
def test_duplicate_is_refused_and_changes_nothing(state: SetupState) -> None:
    _, server, held = server_in(state)
    server.receive(3, held[0])
    before = snapshot(server)
    with pytest.raises(DuplicateMessage):
        server.receive(3, held[0])
    assert snapshot(server) == before


@pytest.mark.parametrize("name", FORGERIES)
def test_forgery_costs_its_sender_only(name: str) -> None:
    _, _, forge = FORGERIES[name]
    kind = {J: Join, C: Commit, R: Reveal, Y: Ready, D: DecryptionShare}[FORGERIES[name][0]]
    simulation = Simulation(4, 2)
    simulation.intercept = altering(kind, lambda m: forge(simulation, m), sender=3)
    end = done(simulation)
    assert end.missing == (3,)
    assert end.session.decryptors == (1, 2, 4)


class InsecureNonCanonicalDealer(SetupClient):
    """Reveals a b_i that is no canonical ring element, but committed to it."""

    def _on_joins(self, sender: int, roster: JoinList) -> list[Output]:
        plain = self.ring.to_bytes

        def overflowing(x: Element, dropped: int = 0) -> bytes:
            return b"\xff" * len(plain(x, dropped))

        self.ring.to_bytes = overflowing  # type: ignore[method-assign]
        return super()._on_joins(sender, roster)

    def _key_share(self, stage: Committed) -> KeyShare:
        zero = Ring.to_bytes(self.ring, self.ring.zero())
        return super()._key_share(replace(stage, key_share=zero))


def test_key_share_that_is_not_canonical_costs_its_dealer() -> None:
    simulation = Simulation(4, 2, clients={3: InsecureNonCanonicalDealer})
    end = done(simulation)
    assert end.session.qualified == (1, 2, 4)
    assert [(r, e.sender) for r, e in simulation.refusals] == [(SERVER, 3)]
    assert "malformed" in simulation.refusals[0][1].reason


def test_shares_in_a_session_without_robustness_are_refused() -> None:
    simulation = Simulation(3, 3, robust=False)
    simulation.intercept = altering(
        Reveal, lambda m: replace(m, shares=(SealedShare(1, b"", b""),)), sender=2
    )
    assert failed(simulation).error.missing == (2,)
    assert [type(e) for _, e in simulation.refusals] == [MalformedMessage]
