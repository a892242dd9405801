"""No two keys may be open at once, each with decryptors of its own.

Attack: a lying server shows two groups of t decryptors two keys, each with a T of its own, or one
 key under two names, and has both groups decrypt.
Claim: nobody uses a key that fewer than v = max(t, ⌊(k + c)/2⌋ + 1) decryptors signed, and no two
 have so many unless more than c sign two. Weakened: t signatures are enough.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
import pytest

import mphe
from mphe.arithmetic.ring import Integers
from mphe.errors import RefusedDecryption
from mphe.plan.agreement import SessionParameters
from mphe.roles.machine import Output
from mphe.roles.setup.client import State
from mphe.roles.setup.server import SetupServer
from mphe.scheme.running_sum import RunningSum
from mphe.wire import codec
from mphe.wire.messages import (
    Commitments,
    Contribution,
    DecryptionRequest,
    Group,
    Message,
    Ready,
    Reveal,
    SessionOpen,
    Vouch,
)
from tests.simulation import Simulation

GROUPS = ((1, 2), (3, 4))
LENGTH = 50


class insecure_SetupServer(SetupServer):
    """Goes on however few are left: it lies."""

    def _shortage(self) -> list[Output]:
        return []


class insecure_Server(mphe.Server):
    """Tells one group of clients that it is alone."""

    SETUP = insecure_SetupServer


def with_t_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let t signatures open a key, as in protocol version 3."""
    monkeypatch.setattr(SessionParameters, "signatures", property(lambda self: self.threshold))


# -- two keys --------------------------------------------------------------------------------------


def sum_of_a_group(
    group: tuple[int, ...], clients: dict[int, mphe.Client], updates: dict[int, Integers]
) -> list[Integers]:
    """Make a key with a group alone, and return what it decrypts for the server."""
    roster = next(iter(clients.values())).roster
    server = insecure_Server(next(iter(clients.values())).plan.session, roster)
    server.lost(*set(clients) - set(group))
    mail = deque((i, mphe.SERVER, data) for i in group for _, data in clients[i].start().mail)
    sums: list[Integers] = []
    while mail:
        sender, receiver, data = mail.popleft()
        step = (
            server.receive(sender, data)
            if receiver == mphe.SERVER
            else clients[receiver].receive(data)
        )
        mail.extend((receiver, to, answer) for to, answer in step.mail)
        for event in step.events:
            if isinstance(event, mphe.SessionReady):
                mail.extend((0, to, start) for to, start in server.start_round(b"m", group).mail)
            elif isinstance(event, mphe.TrainOn):
                sent = clients[receiver].contribute(event.round, updates[receiver])
                mail.extend((receiver, to, answer) for to, answer in sent.mail)
            elif isinstance(event, mphe.Summed):
                sums.append(event.total.astype(np.int64))
    return sums


@pytest.mark.parametrize("few", [True, False])
def test_two_groups_on_two_keys(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if few:
        with_t_signatures(monkeypatch)
    parameters = mphe.SessionParameters(4, 2, LENGTH, 3, min_contributors=2)
    identities = {i: mphe.Identity.generate() for i in range(1, 5)}
    roster = {i: identity.public for i, identity in identities.items()}
    clients = {i: mphe.Client(i, parameters, identities[i], roster) for i in roster}
    updates = {i: np.full(LENGTH, i) for i in roster}
    for group in GROUPS:
        if few:
            (total,) = sum_of_a_group(group, clients, updates)
            assert np.array_equal(total, sum(updates[i] for i in group))
            continue
        with pytest.raises(mphe.RemoteProtocolError, match="made a key of 2 clients only"):
            sum_of_a_group(group, clients, updates)
    if few:
        keys = [clients[i].setup.keys for i in (1, 3)]
        assert keys[0] and keys[1] and keys[0].transcript != keys[1].transcript


# -- one key under two names -----------------------------------------------------------------------


def split(simulation: Simulation, elsewhere: tuple[int, ...]) -> dict[int, Vouch]:
    """Show some clients a shorter list of commitments; return who signed which T."""
    signed: dict[int, Vouch] = {}

    def lie(sender: int, receiver: int, message: Message) -> list[Message]:
        if isinstance(message, Commitments) and receiver in elsewhere:
            return [replace(message, commits=message.commits[:4])]
        if (isinstance(message, Reveal) and sender == 5) or isinstance(message, SessionOpen):
            return []
        if isinstance(message, Ready):
            signed[sender] = Vouch(sender, message.signature)
        return [message]

    simulation.intercept = lie
    for index, client in simulation.clients.items():
        simulation.push(index, client.start())
    simulation.pump()
    simulation.push(0, simulation.server.lost(5))
    simulation.pump()
    return signed


def shown(simulation: Simulation, group: tuple[int, ...], signed: dict[int, Vouch]) -> None:
    """Tell a group that its session is open, with its own signatures on its T."""
    opened = codec.encode(SessionOpen(group, tuple(signed[index] for index in group)))
    for index in group:
        simulation.parties[index].receive(opened)


def request_of(
    simulation: Simulation, group: tuple[int, ...], updates: dict[int, Integers]
) -> tuple[RunningSum, DecryptionRequest]:
    """Return a sum of what a group encrypted, and what its decryptors are asked for it."""
    keys = simulation.keys[group[0]]
    adding = RunningSum(simulation.plan, keys.crs_seed)
    for index, update in updates.items():
        payload = simulation.encrypted(index, update)
        adding.add(adding.parse(Contribution(1, payload.c0, payload.c1, payload.body, b"")))
    asked = (Group(tuple(updates), adding.c1()),)
    return adding, DecryptionRequest(1, 1, group, asked, transcript=keys.transcript)


@pytest.mark.parametrize("few", [True, False])
def test_two_groups_on_two_names_of_one_key(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if few:
        with_t_signatures(monkeypatch)
    simulation = Simulation(5, 2, decryptors=4)
    signed = split(simulation, (3, 4))
    first, second = simulation.keys[1], simulation.keys[3]
    assert first.transcript != second.transcript
    assert np.array_equal(first.key.key, second.key.key)
    for group in GROUPS:
        if not few:
            with pytest.raises(
                mphe.RemoteProtocolError, match=r"2 decryptors signed.*3 are needed"
            ):
                shown(simulation, group, signed)
            assert all(simulation.clients[i].state is State.READY for i in group)
            assert all(i not in simulation.contributors for i in group)
        else:
            shown(simulation, group, signed)
        updates = simulation.random_updates(group)
        adding, request = request_of(simulation, group, updates)
        if few:
            shares = [simulation.read_share(share) for share in simulation.ask(request).values()]
            total = adding.recover(shares, len(updates))
            assert total is not None and np.array_equal(total, sum(updates.values()))
        else:
            with pytest.raises(RefusedDecryption, match="enough others signed"):
                simulation.ask(request)


def test_where_enough_agree_the_others_are_cut_off() -> None:
    """Three of four sign one T; the fourth, shown another, answers for nothing under its own."""
    simulation = Simulation(5, 2, decryptors=4)
    signed = split(simulation, (4,))
    shown(simulation, (1, 2, 3), signed)
    updates = simulation.random_updates((1, 2))
    adding, request = request_of(simulation, (1, 2), updates)
    shares = [simulation.read_share(share) for share in simulation.ask(request).values()]
    total = adding.recover(shares, len(updates))
    assert total is not None and np.array_equal(total, sum(updates.values()))
    with pytest.raises(mphe.RemoteProtocolError, match="client 1 did not sign"):
        simulation.parties[4].receive(
            codec.encode(SessionOpen((1, 2, 3), tuple(signed[i] for i in (1, 2, 3))))
        )
    assert simulation.clients[4].state is State.READY


def test_signatures_of_clients_without_a_share_do_not_count() -> None:
    """Sixteen clients sign, but only what the four decryptors sign decides who can be asked."""
    simulation = Simulation(16, 2, decryptors=4)
    assert simulation.parameters.signatures == 3
    simulation.run_setup()
    assert [vouch.index for vouch in simulation.session.welcome.vouches] == [1, 2, 3, 4]
