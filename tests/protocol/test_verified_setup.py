"""Key set-up with verified aggregates: proofs about the key shares, and who vouches for the key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mphe.arithmetic.ring import Element, Ring
from mphe.arithmetic.sampling import RandomSource
from mphe.errors import RemoteProtocolError
from mphe.roles.machine import Output
from mphe.roles.setup import common as setup
from mphe.roles.setup.client import SetupClient, State
from mphe.roles.setup.server import SetupDone
from mphe.scheme import rlwe, sealing
from mphe.wire.messages import (
    SERVER,
    Join,
    JoinList,
    KeyReveal,
    Message,
    Qualified,
    Ready,
    Reveal,
    SessionOpen,
    Vouch,
    Welcome,
)
from tests.protocol.support import client_in, done
from tests.simulation import Simulation


def signed(simulation: Simulation, reveal: KeyReveal) -> KeyReveal:
    """Return a revealed key share with a signature that fits its content."""
    session = simulation.names[reveal.index]
    parts = setup.reveal_parts(session, reveal)
    identity = simulation.identities[reveal.index]
    return replace(reveal, signature=sealing.sign(identity, "reveal", *parts))


# -- proofs about key shares -----------------------------------------------------------------------


def reproved(simulation: Simulation, session: bytes, index: int, nonce: bytes) -> bytes:
    """Return a proof about client 3's key share that is bound to something else."""
    client = simulation.clients[3]
    seed = simulation.stages[3].crs_seed
    other = setup.KeyShareReader(client.plan, client.ring, session, seed)
    return other.prove(index, nonce, simulation.key_shares[3], simulation.source("proof"))


FalseProof = Callable[[Simulation, KeyReveal, KeyReveal], bytes]
"""(simulation, client 3's reveal, client 2's) → the proof that client 3 sends."""
PROOFS: dict[str, FalseProof] = {
    "missing": lambda s, own, other: b"",
    "too short": lambda s, own, other: own.proof[:-1],
    "too long": lambda s, own, other: own.proof + b"x",
    "altered": lambda s, own, other: bytes([own.proof[0] ^ 1]) + own.proof[1:],
    "of another client's key share": lambda s, own, other: other.proof,
    "of another client": lambda s, own, other: reproved(s, s.names[3], 2, own.nonce),
    "of another session": lambda s, own, other: reproved(s, bytes(32), 3, own.nonce),
    "of another nonce": lambda s, own, other: reproved(s, s.names[3], 3, bytes(setup.NONCE_BYTES)),
}


@pytest.mark.parametrize("mode", ["verified", "verify_clients"])
@pytest.mark.parametrize("name", PROOFS)
def test_a_key_share_with_a_false_proof_costs_its_dealer(name: str, mode: str) -> None:
    options: dict[str, Any] = {mode: True}
    simulation = Simulation(4, 3, **options)
    seen: dict[int, Reveal] = {}

    def meddle(sender: int, _: int, message: Message) -> list[Message]:
        if not isinstance(message, Reveal):
            return [message]
        seen[sender] = message
        if sender != 3:
            return [message]
        proof = PROOFS[name](simulation, message.reveal, seen[2].reveal)
        return [replace(message, reveal=signed(simulation, replace(message.reveal, proof=proof)))]

    simulation.intercept = meddle
    end = done(simulation)
    assert end.missing == (3,)
    assert end.session.qualified == (1, 2, 4)
    ((receiver, error),) = simulation.refusals
    assert (receiver, error.sender) == (SERVER, 3)
    assert "key share of client 3 is malformed" in error.reason


@pytest.mark.parametrize("name", PROOFS)
def test_a_client_refuses_a_key_share_with_a_false_proof(name: str) -> None:
    """The server may be in league with the dealer."""
    simulation, client, held = client_in(State.REVEALED, verified=True, decryptors=3)
    (message,) = held
    assert isinstance(message, Qualified)
    reveals = {reveal.index: reveal for reveal in message.reveals}
    proof = PROOFS[name](simulation, reveals[3], reveals[2])
    reveals[3] = signed(simulation, replace(reveals[3], proof=proof))
    with pytest.raises(RemoteProtocolError, match="key share of client 3 is malformed"):
        client.receive(SERVER, replace(message, reveals=tuple(reveals.values())))
    client.receive(SERVER, message)
    assert client.state is State.READY


class InsecureLongDealer(SetupClient):
    """Commits to a key share whose error is large, and proves what it can."""

    def _on_joins(self, sender: int, roster: JoinList) -> list[Output]:
        plain = rlwe.gen_share

        def shifted(ring: Ring, reference: Element, source: RandomSource) -> rlwe.KeyShare:
            share = plain(ring, reference, source)
            public = share.public.copy()
            public[2, 0] += 1 << 20
            return replace(share, public=self.ring.reduce(public))

        rlwe.gen_share = shifted
        try:
            return super()._on_joins(sender, roster)
        finally:
            rlwe.gen_share = plain


def test_a_key_share_with_a_large_error_costs_its_dealer() -> None:
    simulation = Simulation(4, 3, verified=True, clients={3: InsecureLongDealer})
    end = done(simulation)
    assert end.session.qualified == (1, 2, 4)
    assert "proof does not fit" in simulation.refusals[0][1].reason


def test_a_proof_that_nobody_asked_for_costs_its_dealer() -> None:
    simulation = Simulation(4, 2)

    def add(sender: int, _: int, message: Message) -> list[Message]:
        if sender == 3 and isinstance(message, Reveal):
            reveal = signed(simulation, replace(message.reveal, proof=b"proof"))
            return [replace(message, reveal=reveal)]
        return [message]

    simulation.intercept = add
    assert done(simulation).session.qualified == (1, 2, 4)
    assert "nobody asked for a proof" in simulation.refusals[0][1].reason


def test_a_client_refuses_a_proof_that_nobody_asked_for() -> None:
    simulation, client, (message,) = client_in(State.REVEALED)
    first = signed(simulation, replace(message.reveals[1], proof=b"proof"))
    reveals = (message.reveals[0], first, *message.reveals[2:])
    with pytest.raises(RemoteProtocolError, match="nobody asked for a proof"):
        client.receive(SERVER, replace(message, reveals=reveals))


# -- who vouches for the key -----------------------------------------------------------------------

Forge = Callable[[tuple[Vouch, ...]], tuple[Vouch, ...]]
VOUCHES: dict[str, tuple[str, Forge]] = {
    "none": ("0 decryptors signed", lambda v: ()),
    "one too few": ("2 decryptors signed", lambda v: v[:2]),
    "one twice": ("not sorted and distinct", lambda v: (v[0], *v)),
    "unsorted": ("not sorted and distinct", lambda v: v[::-1]),
    "a forged one": (
        "client 1 did not sign",
        lambda v: (replace(v[0], signature=bytes(64)), *v[1:]),
    ),
    "one in another name": (
        "client 1 did not sign",
        lambda v: (replace(v[0], signature=v[1].signature), *v[1:]),
    ),
    "a stranger's": ("client 9 did not sign", lambda v: (*v[:-1], replace(v[-1], index=9))),
}


def awaiting_open() -> tuple[Simulation, SetupClient, SessionOpen]:
    """Return client 2 of a verified session, before the session is opened for it."""
    simulation = Simulation(4, 3, verified=True)
    held: list[SessionOpen] = []

    def hold(_: int, receiver: int, message: Message) -> list[Message]:
        if receiver == 2 and isinstance(message, SessionOpen):
            held.append(message)
            return []
        return [message]

    simulation.intercept = hold
    assert isinstance(simulation.run_setup(), SetupDone)
    return simulation, simulation.clients[2], held[0]


@pytest.mark.parametrize("name", VOUCHES)
def test_a_client_refuses_a_session_that_too_few_vouch_for(name: str) -> None:
    reason, forge = VOUCHES[name]
    _, client, opened = awaiting_open()
    with pytest.raises(RemoteProtocolError, match=reason):
        client.receive(SERVER, replace(opened, vouches=forge(opened.vouches)))
    client.receive(SERVER, opened)
    assert client.state is State.OPEN


@pytest.mark.parametrize("name", VOUCHES)
def test_a_late_client_refuses_a_session_that_too_few_vouch_for(name: str) -> None:
    reason, forge = VOUCHES[name]
    _, client, welcome = late()
    with pytest.raises(RemoteProtocolError, match=reason):
        client.receive(SERVER, replace(welcome, vouches=forge(welcome.vouches)))
    client.receive(SERVER, welcome)
    assert client.state is State.OPEN


def late() -> tuple[Simulation, SetupClient, Welcome]:
    """Return client 4, which asks to join a session of the others."""
    simulation = Simulation(4, 3, verified=True)
    simulation.vanish_before(4, Join)
    assert isinstance(simulation.run_setup(), SetupDone)
    client = SetupClient(
        *(4, simulation.plan, simulation.identities[4], simulation.roster),
        simulation.source("late"),
    )
    client.start()
    return simulation, client, simulation.session.welcome


def test_a_late_client_refuses_a_key_share_with_a_false_proof() -> None:
    simulation, client, welcome = late()
    first, second, third = welcome.reveals
    for proof in (b"", second.proof, third.proof[::-1]):
        false = signed(simulation, replace(third, proof=proof))
        with pytest.raises(RemoteProtocolError, match="key share of client 3 is malformed"):
            client.receive(SERVER, replace(welcome, reveals=(first, second, false)))
    client.receive(SERVER, welcome)
    assert client.state is State.OPEN


def test_a_client_that_was_shown_another_key_notices() -> None:
    simulation = Simulation(4, 3, verified=True)
    ready: dict[int, Ready] = {}
    opened: list[SessionOpen] = []

    def lie(sender: int, receiver: int, message: Message) -> list[Message]:
        if receiver == 1 and isinstance(message, Qualified):
            # A smaller Q, so another b and another T; the honest server would not do this.
            return [replace(message, reveals=message.reveals[:3], shares=message.shares[:2])]
        if isinstance(message, Ready):
            ready[sender] = message
            return [] if sender == 1 else [message]
        if isinstance(message, SessionOpen):
            opened.append(message)
        return [message]

    simulation.intercept = lie
    assert isinstance(simulation.run_setup(), SetupDone)
    client = simulation.clients[1]
    assert client.state is State.READY
    assert simulation.keys[1].transcript != simulation.keys[2].transcript
    own = Vouch(1, ready[1].signature)
    others = opened[0].vouches
    assert [vouch.index for vouch in others] == [2, 3, 4]
    for vouches in (others, (own,), (own, *others[:2])):
        with pytest.raises(RemoteProtocolError, match=r"did not sign this session|are needed"):
            client.receive(SERVER, SessionOpen((1, 2, 3), vouches))
    assert client.state is State.READY
    # The majority agrees, and goes on.
    assert all(simulation.clients[index].state is State.OPEN for index in (2, 3, 4))
