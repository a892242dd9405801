"""Key set-up: who may say what when, who is named, and what survives drop-outs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from mphe import rlwe, sealing, setup, shamir
from mphe.aggregator import Summed
from mphe.codec import MESSAGE_TYPES
from mphe.errors import (
    DuplicateMessage,
    LocalProtocolError,
    MalformedMessage,
    RemoteProtocolError,
    UnexpectedSender,
)
from mphe.machine import Output, Send
from mphe.messages import (
    SERVER,
    Commit,
    Commitments,
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Finish,
    Join,
    KeyReveal,
    Message,
    Qualified,
    Ready,
    Refusal,
    Reveal,
    Roster,
    RoundEnd,
    RoundStart,
    SealedShare,
    SessionOpen,
    Welcome,
)
from mphe.ring import Limbs
from mphe.rlwe import KeyShare
from mphe.setup_client import KeysReady, Opened, SetupClient
from mphe.setup_client import State as ClientState
from mphe.setup_server import SetupAbandoned, SetupDone, SetupServer
from mphe.setup_server import State as ServerState
from tests.simulation import SeededSource, Simulation, altering, snapshot

SAMPLES: dict[type, Message] = {
    type(message): message
    for message in (
        Join(3, b"", b"", b""),
        Roster(b"", ()),
        Commit(3, b"", b""),
        Commitments(()),
        Reveal(KeyReveal(3, b"", b"", b""), ()),
        Qualified((), ()),
        Ready(b"", ()),
        SessionOpen((1, 2)),
        Welcome((), (), (), (), ()),
        RoundStart(1, b""),
        Contribution(1, b"", b"", b"", b""),
        DecryptionRequest(1, 1, (1, 2), (1, 2), b""),
        DecryptionShare(0, 1, b""),
        Refusal(0, 1, ""),
        RoundEnd(1, ()),
        Finish(""),
    )
}

# The message that leads on; a client that joins late is welcomed instead of put on the roster.
CLIENT_TAKES: dict[ClientState, type | None] = {
    ClientState.NEW: None,
    ClientState.JOINED: Roster,
    ClientState.COMMITTED: Commitments,
    ClientState.REVEALED: Qualified,
    ClientState.READY: SessionOpen,
    ClientState.OPEN: None,
}
SERVER_TAKES: dict[ServerState, set[type]] = {
    ServerState.JOINING: {Join},
    ServerState.COMMITTING: {Commit, Join},
    ServerState.REVEALING: {Reveal, Join},
    ServerState.READYING: {Ready, Join},
    ServerState.CONFIRMING: {DecryptionShare, Refusal, Join},
    ServerState.OPEN: set(),
    ServerState.FAILED: set(),
}


def start(simulation: Simulation) -> None:
    """Let all clients join, and deliver what follows."""
    for index, client in simulation.clients.items():
        simulation.push(index, client.start())
    simulation.pump()


def client_in(state: ClientState, **options: Any) -> tuple[Simulation, SetupClient, list[Any]]:
    """Return client 1 in that state, with the message that would lead it on."""
    simulation = Simulation(4, 2, **options)
    client, held = simulation.clients[1], []
    before = simulation.intercept

    def hold(sender: int, receiver: int, message: Message) -> list[Message]:
        if receiver != 1 or client.state is not state or isinstance(message, DecryptionRequest):
            return [message]
        held.append(message)
        return []

    assert before is None
    if state is not ClientState.NEW:
        simulation.intercept = hold
        start(simulation)
    assert client.state is state
    return simulation, client, held


def server_in(state: ServerState) -> tuple[Simulation, SetupServer, list[Any]]:
    """Return the server in that state, with the messages of client 3 that it waits for.

    It waits for client 4 as well, so a message of client 3 ends no stage.
    """
    simulation = Simulation(4, 2)
    server, held = simulation.server, []

    def hold(sender: int, receiver: int, message: Message) -> list[Message]:
        if sender not in (3, 4) or receiver != SERVER or server.state is not state:
            return [message]
        held.extend([message] if sender == 3 else [])
        return []

    simulation.intercept = hold
    if state is ServerState.FAILED:
        for index in (1, 2, 3, 4):
            server.lost(index)
    else:
        start(simulation)
    assert server.state is state
    return simulation, server, held


def done(simulation: Simulation) -> SetupDone:
    """Return how the set-up ended, which must be well."""
    end = simulation.run_setup()
    assert isinstance(end, SetupDone), end
    return end


def failed(simulation: Simulation) -> SetupAbandoned:
    """Return how the set-up ended, which must be badly."""
    end = simulation.run_setup()
    assert isinstance(end, SetupAbandoned), end
    return end


def sent(outputs: Sequence[Output]) -> list[Message]:
    """Return the messages among outputs."""
    return [output.message for output in outputs if isinstance(output, Send)]


# -- what comes out --------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "t"), [(2, 2), (3, 2), (5, 3)])
def test_any_t_shares_give_the_sum_of_all_secrets(n: int, t: int) -> None:
    simulation = Simulation(n, t)
    done(simulation)
    secrets = sum(client._key_share.secret for client in simulation.clients.values())
    shares = {i: keys.share for i, keys in simulation.keys.items() if keys.share is not None}
    for chosen in combinations(range(1, n + 1), t):
        got = shamir.reconstruct(simulation.ring, {i: shares[i] for i in chosen})
        assert np.array_equal(got, simulation.ring.from_small(np.asarray(secrets)))


def test_all_parties_agree_on_the_transcript_and_the_key() -> None:
    simulation = Simulation(3, 2)
    end = done(simulation)
    key_shares = [client._key_share.public for client in simulation.clients.values()]
    expected = rlwe.aggregate_shares(simulation.ring, key_shares)
    for keys in simulation.keys.values():
        assert keys.transcript == end.session.transcript
        assert np.array_equal(keys.key.key, expected)
    assert simulation.keys[1].mask_keys[2] == simulation.keys[2].mask_keys[1]


def test_no_two_pairs_share_a_mask_key() -> None:
    simulation = Simulation(4, 2)
    done(simulation)
    seen = {key for keys in simulation.keys.values() for key in keys.mask_keys.values()}
    assert len(seen) == 6


def test_mask_keys_differ_between_sessions() -> None:
    first, second = (Simulation(3, 2, label=label) for label in ("a", "b"))
    assert done(first).session.transcript != done(second).session.transcript
    assert first.keys[1].mask_keys[2] != second.keys[1].mask_keys[2]


def test_without_robustness_every_client_keeps_its_own_secret() -> None:
    simulation = Simulation(3, 3, robust=False)
    assert done(simulation).session.decryptors == (1, 2, 3)
    for index, client in simulation.clients.items():
        share = simulation.keys[index].share
        assert share is not None
        assert np.array_equal(share, simulation.ring.from_small(client._key_share.secret))
    assert all(not m.shares for _, _, m in simulation.log if isinstance(m, Reveal))


def test_everybody_learns_that_the_session_is_open() -> None:
    simulation = Simulation(4, 2, decryptors=3)
    assert done(simulation).session.decryptors == (1, 2, 3)
    opened = {i: e for i, e in simulation.events if isinstance(e, Opened)}
    assert opened == {i: Opened((1, 2, 3)) for i in (1, 2, 3, 4)}
    assert set(simulation.decryptors) == {1, 2, 3}


def test_each_decryptor_from_t_on_is_confirmed_with_the_first_ones() -> None:
    simulation = Simulation(5, 3)
    done(simulation)
    requests = {m for _, _, m in simulation.log if isinstance(m, DecryptionRequest)}
    assert {m.active for m in requests} == {(1, 2, 3), (1, 2, 4), (1, 2, 5)}
    assert {m.round for m in requests} == {0}


# -- states ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ClientState)
def test_client_refuses_what_its_state_does_not_expect(state: ClientState) -> None:
    _, client, _ = client_in(state)
    before = snapshot(client)
    for kind in MESSAGE_TYPES:
        if kind is CLIENT_TAKES[state] or (state, kind) == (ClientState.JOINED, Welcome):
            continue
        assert (state, kind) not in client.TRANSITIONS
        with pytest.raises(RemoteProtocolError):
            client.receive(SERVER, SAMPLES[kind])
        assert snapshot(client) == before


@pytest.mark.parametrize("state", ServerState)
def test_server_refuses_what_its_state_does_not_expect(state: ServerState) -> None:
    _, server, _ = server_in(state)
    before = snapshot(server)
    for kind in MESSAGE_TYPES:
        if kind in SERVER_TAKES[state]:
            continue
        assert (state, kind) not in server.TRANSITIONS
        with pytest.raises(RemoteProtocolError) as caught:
            server.receive(3, SAMPLES[kind])
        assert caught.value.sender == 3
        assert snapshot(server) == before


@pytest.mark.parametrize("state", [s for s, kind in CLIENT_TAKES.items() if kind])
def test_client_moves_on_with_the_right_message_only_from_the_server(state: ClientState) -> None:
    _, client, held = client_in(state)
    before = snapshot(client)
    with pytest.raises(UnexpectedSender):
        client.receive(2, held[0])
    assert snapshot(client) == before
    client.receive(SERVER, held[0])
    assert client.state is client.TRANSITIONS[state, type(held[0])]
    after = snapshot(client)
    with pytest.raises(RemoteProtocolError):
        client.receive(SERVER, held[0])
    assert snapshot(client) == after


def test_client_starts_once() -> None:
    _, client, _ = client_in(ClientState.JOINED)
    with pytest.raises(LocalProtocolError):
        client.start()


@pytest.mark.parametrize("state", [ServerState.OPEN, ServerState.FAILED])
def test_finished_server_ignores_deadlines_and_losses(state: ServerState) -> None:
    _, server, _ = server_in(state)
    assert server.deadline_passed() == [] and server.lost(2) == []
    assert server.state is state


@pytest.mark.parametrize("state", [s for s, kinds in SERVER_TAKES.items() if kinds])
def test_strangers_and_lost_clients_are_not_heard(state: ServerState) -> None:
    _, server, held = server_in(state)
    for stranger in (0, 5):
        with pytest.raises(UnexpectedSender):
            server.receive(stranger, held[0])
    server.lost(3)
    with pytest.raises(RemoteProtocolError):
        server.receive(3, held[0])


# -- drop-outs -------------------------------------------------------------------------------------

STAGES: list[tuple[str, type, bool]] = [
    # when, what the client's last message is or would be, whether its b_i is in the key
    ("before", Join, False),
    ("after", Join, False),
    ("after", Commit, False),
    ("after", Reveal, True),
    ("after", Ready, True),
    ("before", DecryptionShare, True),
]


def dropping(simulation: Simulation, index: int, when: str, kind: type, told: bool) -> None:
    """Arrange for a client to vanish."""
    hook = simulation.vanish_before if when == "before" else simulation.vanish_after
    hook(index, kind, told=told)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("index", [1, 2, 4])
@pytest.mark.parametrize(("when", "kind", "in_key"), STAGES)
def test_setup_survives_a_dropout_at_any_stage(
    when: str, kind: type, in_key: bool, index: int, told: bool
) -> None:
    simulation = Simulation(4, 2)
    dropping(simulation, index, when, kind, told)
    end = done(simulation)
    left = tuple(i for i in (1, 2, 3, 4) if i != index)
    assert end.session.qualified == ((1, 2, 3, 4) if in_key else left)
    assert set(left) <= set(end.session.decryptors)
    assert end.missing == (index,)
    updates = simulation.random_updates(left)
    total = simulation.run_round(updates, present=left)
    assert isinstance(total, Summed) and np.array_equal(total.total, sum(updates.values()))


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("index", [1, 2, 4])
def test_dropout_after_its_first_confirming_share_hurts_nobody_else(index: int, told: bool) -> None:
    simulation = Simulation(4, 2)
    simulation.vanish_after(index, DecryptionShare, told=told)
    end = done(simulation)
    assert set(end.missing) <= {index}
    assert {1, 2, 3, 4} - {index} <= set(end.session.decryptors)


@pytest.mark.parametrize("when_kind", [stage[:2] for stage in STAGES])
@pytest.mark.parametrize("robust", [True, False])
def test_setup_that_cannot_reach_t_fails_and_names_the_missing(
    when_kind: tuple[str, type], robust: bool
) -> None:
    simulation = Simulation(3, 3, robust=robust)
    dropping(simulation, 2, *when_kind, told=False)
    assert failed(simulation).error.missing == (2,)


@pytest.mark.parametrize("when_kind", [stage[:2] for stage in STAGES])
def test_setup_survives_n_minus_t_dropouts_and_not_one_more(when_kind: tuple[str, type]) -> None:
    for count in (2, 3):
        simulation = Simulation(5, 3)
        gone = tuple(range(1, count + 1))
        for index in gone:
            dropping(simulation, index, *when_kind, told=False)
        if count == 2:
            assert done(simulation).missing == gone
        else:
            assert failed(simulation).error.missing == gone


def test_without_min_contributors_left_the_setup_fails() -> None:
    simulation = Simulation(4, 2, min_contributors=4)
    simulation.vanish_before(4, Join)
    assert failed(simulation).error.missing == (4,)


def test_clients_without_a_share_cannot_replace_decryptors() -> None:
    simulation = Simulation(5, 3, decryptors=3)
    simulation.vanish_before(3, Commit)
    assert failed(simulation).error.missing == (3,)


def test_nobody_left_fails() -> None:
    simulation = Simulation(3, 2)
    for index in (1, 2, 3):
        simulation.vanish_before(index, Join)
    assert failed(simulation).error.missing == (1, 2, 3)


def test_answers_of_a_lost_decryptors_set_do_not_stall_the_confirmation() -> None:
    """1 has yet to answer for {1, 4} when 4 is lost; then nothing is missing any more."""
    simulation = Simulation(4, 2)
    server = simulation.server
    answers: dict[tuple[int, int], DecryptionShare] = {}

    def hold(sender: int, receiver: int, message: Message) -> list[Message]:
        if not isinstance(message, DecryptionShare):
            return [message]
        answers[sender, message.attempt] = message
        return []

    simulation.intercept = hold
    start(simulation)
    for sender, attempt in ((1, 1), (2, 1), (1, 2), (3, 2)):
        server.receive(sender, answers[sender, attempt])
    assert server.waiting_for() == (1, 4)
    server.lost(4)
    if server.state is ServerState.CONFIRMING:
        server.receive(1, answers[1, 3])
    assert server.state is ServerState.OPEN


# -- what the server is sent -----------------------------------------------------------------------


def resigned(simulation: Simulation, message: Any) -> Any:
    """Return client 3's message with a signature that fits its content."""
    identity, session = simulation.identities[3], getattr(simulation.clients[3], "_session", b"")
    if isinstance(message, Join):
        parts = setup.join_parts(simulation.parameters, message)
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
    ServerState.JOINING,
    ServerState.COMMITTING,
    ServerState.REVEALING,
    ServerState.READYING,
    ServerState.CONFIRMING,
)
FORGERIES: dict[str, tuple[ServerState, type[RemoteProtocolError], Forgery]] = {
    "join unsigned": (J, RemoteProtocolError, lambda s, m: replace(m, signature=bytes(64))),
    "join altered": (J, RemoteProtocolError, lambda s, m: replace(m, entropy=bytes(32))),
    "join for another": (J, UnexpectedSender, lambda s, m: replace(m, index=4)),
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
        lambda s, m: replace(m, shares=(*m.shares, SealedShare(3, b""))),
    ),
    "reveal with a share of the wrong length": (
        R,
        MalformedMessage,
        lambda s, m: replace(m, shares=(replace(m.shares[0], sealed=b""), *m.shares[1:])),
    ),
    "ready unsigned": (Y, MalformedMessage, lambda s, m: replace(m, signature=bytes(64))),
    "ready about a stranger": (Y, MalformedMessage, lambda s, m: replace(m, unopened=(7,))),
    "share too short": (D, MalformedMessage, lambda s, m: replace(m, share=m.share[1:])),
    "confirmation refused": (D, RemoteProtocolError, lambda s, m: Refusal(0, m.attempt, "no")),
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
def test_duplicate_is_refused_and_changes_nothing(state: ServerState) -> None:
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

    def _on_roster(self, sender: int, roster: Roster) -> list[Output]:
        plain = self.ring.to_bytes

        def overflowing(x: Limbs, dropped: int = 0) -> bytes:
            return b"\xff" * len(plain(x, dropped))

        self.ring.to_bytes = overflowing  # type: ignore[method-assign]
        return super()._on_roster(sender, roster)


def test_key_share_that_is_not_canonical_costs_its_dealer() -> None:
    simulation = Simulation(4, 2, clients={3: InsecureNonCanonicalDealer})
    end = done(simulation)
    assert end.session.qualified == (1, 2, 4)
    assert [(r, e.sender) for r, e in simulation.refusals] == [(SERVER, 3)]
    assert "malformed" in simulation.refusals[0][1].reason


# -- what a client is sent -------------------------------------------------------------------------

Lie = Callable[[Simulation, Any], Any]


def swap_first(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the items with the first two exchanged."""
    return (items[1], items[0], *items[2:])


def with_item(items: tuple[Any, ...], position: int, item: Any) -> tuple[Any, ...]:
    """Return the items with one replaced."""
    return (*items[:position], item, *items[position + 1 :])


def other_join(simulation: Simulation, roster: Roster, position: int, **changes: Any) -> Roster:
    """Return a roster with a properly signed, but different join."""
    unsigned = replace(roster.joins[position], **changes)
    parts = setup.join_parts(simulation.parameters, unsigned)
    identity = simulation.identities[roster.joins[position].index]
    signed = replace(unsigned, signature=sealing.sign(identity, "join", *parts))
    return replace(roster, joins=with_item(roster.joins, position, signed))


def other_commit(simulation: Simulation, message: Commitments, position: int) -> Commitments:
    """Return a list with a properly signed, but different commitment."""
    unsigned = replace(message.commits[position], commitment=bytes(32))
    parts = setup.commit_parts(simulation.clients[1]._session, unsigned)
    signature = sealing.sign(simulation.identities[unsigned.index], "commit", *parts)
    commits = with_item(message.commits, position, replace(unsigned, signature=signature))
    return replace(message, commits=commits)


def other_reveal(s: Simulation, message: Qualified, position: int, **changes: Any) -> Qualified:
    """Return a qualified set with a properly signed, but different b_i."""
    unsigned = replace(message.reveals[position], **changes)
    parts = setup.reveal_parts(s.clients[1]._session, unsigned)
    signature = sealing.sign(s.identities[unsigned.index], "reveal", *parts)
    reveals = with_item(message.reveals, position, replace(unsigned, signature=signature))
    return replace(message, reveals=reveals)


JOINED, COMMITTED, REVEALED = ClientState.JOINED, ClientState.COMMITTED, ClientState.REVEALED
LIES: dict[str, tuple[ClientState, Lie]] = {
    "other parameters": (JOINED, lambda s, m: replace(m, parameters=bytes(32))),
    "roster unsorted": (JOINED, lambda s, m: replace(m, joins=swap_first(m.joins))),
    "roster with a join twice": (JOINED, lambda s, m: replace(m, joins=(m.joins[0], *m.joins))),
    "roster with a stranger": (
        JOINED,
        lambda s, m: replace(m, joins=(*m.joins, replace(m.joins[3], index=5))),
    ),
    "roster without this client": (JOINED, lambda s, m: replace(m, joins=m.joins[1:])),
    "roster empty": (JOINED, lambda s, m: replace(m, joins=())),
    "another join of this client": (JOINED, lambda s, m: other_join(s, m, 0, entropy=bytes(32))),
    "altered join of another": (
        JOINED,
        lambda s, m: replace(
            m, joins=with_item(m.joins, 1, replace(m.joins[1], entropy=m.joins[2].entropy))
        ),
    ),
    "exchange key of small order": (
        JOINED,
        lambda s, m: other_join(s, m, 1, exchange_key=bytes(32)),
    ),
    "join with little entropy": (JOINED, lambda s, m: other_join(s, m, 1, entropy=b"")),
    "commitments unsorted": (COMMITTED, lambda s, m: replace(m, commits=swap_first(m.commits))),
    "a commitment twice": (
        COMMITTED,
        lambda s, m: replace(m, commits=(m.commits[0], *m.commits)),
    ),
    "commitment altered": (
        COMMITTED,
        lambda s, m: replace(
            m, commits=with_item(m.commits, 1, replace(m.commits[1], commitment=bytes(32)))
        ),
    ),
    "commitment of a stranger": (
        COMMITTED,
        lambda s, m: replace(m, commits=(*m.commits, replace(m.commits[3], index=5))),
    ),
    "commitments without this client's": (
        COMMITTED,
        lambda s, m: replace(m, commits=m.commits[1:]),
    ),
    "another commitment of this client": (COMMITTED, lambda s, m: other_commit(s, m, 0)),
    "key share unsigned": (
        REVEALED,
        lambda s, m: replace(
            m, reveals=with_item(m.reveals, 1, replace(m.reveals[1], signature=bytes(64)))
        ),
    ),
    "key share not committed to": (
        REVEALED,
        lambda s, m: other_reveal(s, m, 1, key_share=m.reveals[2].key_share),
    ),
    "nonce not committed to": (REVEALED, lambda s, m: other_reveal(s, m, 1, nonce=bytes(32))),
    "own key share replaced": (
        REVEALED,
        lambda s, m: other_reveal(s, m, 0, key_share=m.reveals[1].key_share),
    ),
    "this client left out": (REVEALED, lambda s, m: replace(m, reveals=m.reveals[1:])),
    "nobody qualified": (REVEALED, lambda s, m: replace(m, reveals=())),
    "qualified set unsorted": (REVEALED, lambda s, m: replace(m, reveals=swap_first(m.reveals))),
    "a key share twice": (REVEALED, lambda s, m: replace(m, reveals=(m.reveals[0], *m.reveals))),
}


@pytest.mark.parametrize("name", LIES)
def test_lie_of_the_server_is_refused_and_changes_nothing(name: str) -> None:
    state, lie = LIES[name]
    simulation, client, held = client_in(state)
    before = snapshot(client)
    with pytest.raises(RemoteProtocolError) as caught:
        client.receive(SERVER, lie(simulation, held[0]))
    assert caught.value.sender == SERVER
    assert snapshot(client) == before
    client.receive(SERVER, held[0])
    assert client.state is not state


def test_commitment_of_a_client_that_did_not_join_is_refused() -> None:
    """The server shows client 1 a roster without 4, and later 4's commitment."""
    simulation, client, held = client_in(ClientState.JOINED)
    client.receive(SERVER, replace(held[0], joins=held[0].joins[:3]))
    commit = client._commit
    identity = simulation.identities[4]
    stranger = Commit(4, bytes(32), b"")
    parts = setup.commit_parts(client._session, stranger)
    signed = replace(stranger, signature=sealing.sign(identity, "commit", *parts))
    with pytest.raises(RemoteProtocolError):
        client.receive(SERVER, Commitments((commit, signed)))


def test_key_share_of_a_client_that_did_not_commit_is_refused() -> None:
    """The server shows client 1 a list without 4's commitment, and later 4's key share."""
    _, client, held = client_in(ClientState.COMMITTED)
    client.receive(SERVER, replace(held[0], commits=held[0].commits[:3]))
    _, _, complete = client_in(ClientState.REVEALED)
    with pytest.raises(RemoteProtocolError):
        client.receive(SERVER, complete[0])
    client.receive(SERVER, replace(complete[0], reveals=complete[0].reveals[:3]))
    assert client.state is ClientState.READY


def test_parties_with_different_flags_do_not_form_a_session() -> None:
    simulation, other = Simulation(3, 2), Simulation(3, 2, value_bits=8)
    (join,) = sent(other.clients[1].start())
    with pytest.raises(RemoteProtocolError, match="same flags"):
        simulation.server.receive(1, join)


def test_server_that_shows_different_lists_is_found_out_by_the_ready_signature() -> None:
    simulation = Simulation(4, 2)

    def split(sender: int, receiver: int, message: Message) -> list[Message]:
        if isinstance(message, Commitments) and receiver == 1:
            return [replace(message, commits=message.commits[:3])]
        if isinstance(message, Qualified) and receiver == 1:
            return [replace(message, reveals=message.reveals[:3])]
        return [message]

    simulation.intercept = split
    simulation.run_setup()
    assert (SERVER, 1) in [(r, e.sender) for r, e in simulation.refusals]


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
        (lambda s: (SealedShare(2, s[1].sealed), SealedShare(3, s[0].sealed), s[2]), (2, 3)),
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
    (told,) = [e for i, e in simulation.events if i == 1 and isinstance(e, KeysReady)]
    assert told.unopened == unopened and told.keys.share is None
    readies = {s: m.unopened for s, _, m in simulation.log if isinstance(m, Ready)}
    assert readies == {1: unopened, 2: (), 3: (), 4: ()}
    assert end.session.decryptors == (2, 3, 4)
    updates = simulation.random_updates()
    total = simulation.run_round(updates)
    assert isinstance(total, Summed) and np.array_equal(total.total, sum(updates.values()))


class InsecureOverflowingDealer(SetupClient):
    """Seals residues that are not below q."""

    def _seal(self, receiver: int, share: Limbs) -> SealedShare:
        text = b"\xff" * len(self.ring.to_bytes(share))
        peer = self._exchange_keys[receiver]
        return SealedShare(receiver, self._pairwise.seal(receiver, peer, self._session, text))


class InsecureSilentDealer(SetupClient):
    """Seals nothing of use to anybody."""

    def _seal(self, receiver: int, share: Limbs) -> SealedShare:
        return replace(super()._seal(receiver, share), sealed=bytes(4096 * 12 + 16))


@pytest.mark.parametrize("dealer", [InsecureOverflowingDealer, InsecureSilentDealer])
def test_dealer_of_useless_shares_is_named(dealer: type[SetupClient]) -> None:
    simulation = Simulation(4, 2, clients={3: dealer})
    end = failed(simulation)
    assert "shares dealt by [3] did not open" in str(end.error)
    assert end.error.missing == (3,)
    readies = {s: m.unopened for s, _, m in simulation.log if isinstance(m, Ready)}
    assert readies == {1: (3,), 2: (3,), 3: (), 4: (3,)}


def inconsistent_for(*victims: int) -> type[SetupClient]:
    """Return a dealer whose shares for these receivers lie on no polynomial with the others."""

    class InsecureInconsistentDealer(SetupClient):
        def _seal(self, receiver: int, share: Limbs) -> SealedShare:
            if receiver in victims:
                share = self.ring.reduce(share + self.ring.from_small(np.ones(4096, np.int64)))
            return super()._seal(receiver, share)

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


@pytest.mark.parametrize(("n", "t", "told"), [(4, 2, (1,)), (4, 3, (1, 2)), (3, 3, (1, 2))])
@pytest.mark.parametrize("robust", [True, False])
def test_client_refuses_a_key_of_too_few_clients(
    n: int, t: int, told: tuple[int, ...], robust: bool
) -> None:
    if not robust and n != t:
        return
    simulation = Simulation(n, t, robust=robust)
    simulation.intercept = altering(
        Qualified,
        lambda m: replace(m, reveals=tuple(r for r in m.reveals if r.index in told)),
        receiver=1,
    )
    start(simulation)
    (refusal,) = [e for i, e in simulation.refusals if i == 1]
    assert refusal.sender == SERVER and 1 not in simulation.keys


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
        self._own_share = self.ring.zero()
        return super()._on_qualified(sender, message)


def test_wrong_additive_share_fails_the_confirmation() -> None:
    simulation = Simulation(3, 3, robust=False, clients={2: InsecureForgetfulClient})
    assert "does not decrypt" in str(failed(simulation).error)


def test_shares_in_a_session_without_robustness_are_refused() -> None:
    simulation = Simulation(3, 3, robust=False)
    simulation.intercept = altering(
        Reveal, lambda m: replace(m, shares=(SealedShare(1, b""),)), sender=2
    )
    assert failed(simulation).error.missing == (2,)
    assert [type(e) for _, e in simulation.refusals] == [MalformedMessage]


def test_secret_of_a_key_share_is_fresh_for_each_session() -> None:
    simulation = Simulation(2, 2)
    reference = rlwe.common_reference(simulation.ring, bytes(32))
    source = SeededSource("fresh")
    first, second = (rlwe.gen_share(simulation.ring, reference, source) for _ in range(2))
    assert isinstance(first, KeyShare)
    assert not np.array_equal(first.secret, second.secret)
