"""Key set-up: a server that lies to a client, and parties that do not agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mphe.errors import RemoteProtocolError
from mphe.roles.machine import Output, Send
from mphe.roles.setup import common as setup
from mphe.roles.setup.client import Committed
from mphe.roles.setup.client import State as ClientState
from mphe.scheme import sealing
from mphe.wire.messages import SERVER, Commit, Commitments, JoinList, Message, Qualified
from tests.protocol.support import client_in, start
from tests.simulation import Simulation, altering, snapshot

Lie = Callable[[Simulation, Any], Any]


def swap_first(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the items with the first two exchanged."""
    return (items[1], items[0], *items[2:])


def with_item(items: tuple[Any, ...], position: int, item: Any) -> tuple[Any, ...]:
    """Return the items with one replaced."""
    return (*items[:position], item, *items[position + 1 :])


def other_join(simulation: Simulation, roster: JoinList, position: int, **changes: Any) -> JoinList:
    """Return a roster with a properly signed, but different join."""
    unsigned = replace(roster.joins[position], **changes)
    parts = setup.join_parts(simulation.server._epoch, unsigned)
    identity = simulation.identities[roster.joins[position].index]
    signed = replace(unsigned, signature=sealing.sign(identity, "join", *parts))
    return replace(roster, joins=with_item(roster.joins, position, signed))


def other_commit(simulation: Simulation, message: Commitments, position: int) -> Commitments:
    """Return a list with a properly signed, but different commitment."""
    unsigned = replace(message.commits[position], commitment=bytes(32))
    parts = setup.commit_parts(simulation.names[1], unsigned)
    signature = sealing.sign(simulation.identities[unsigned.index], "commit", *parts)
    commits = with_item(message.commits, position, replace(unsigned, signature=signature))
    return replace(message, commits=commits)


def other_reveal(s: Simulation, message: Qualified, position: int, **changes: Any) -> Qualified:
    """Return a qualified set with a properly signed, but different b_i."""
    unsigned = replace(message.reveals[position], **changes)
    parts = setup.reveal_parts(s.names[1], unsigned)
    signature = sealing.sign(s.identities[unsigned.index], "reveal", *parts)
    reveals = with_item(message.reveals, position, replace(unsigned, signature=signature))
    return replace(message, reveals=reveals)


JOINED, COMMITTED, REVEALED = ClientState.JOINED, ClientState.COMMITTED, ClientState.REVEALED
LIES: dict[str, tuple[ClientState, Lie]] = {
    "other parameters": (JOINED, lambda s, m: replace(m, parameters=bytes(32))),
    "roster of another epoch": (JOINED, lambda s, m: replace(m, epoch=1)),
    "join of another epoch": (JOINED, lambda s, m: other_join(s, m, 1, epoch=1)),
    "join without an encapsulation key": (
        JOINED,
        lambda s, m: other_join(s, m, 1, encapsulation_key=b""),
    ),
    "join with what is no encapsulation key": (
        JOINED,
        lambda s, m: other_join(s, m, 1, encapsulation_key=bytes([255]) * 1184),
    ),
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
    stage = client.stage
    assert isinstance(stage, Committed)
    identity = simulation.identities[4]
    stranger = Commit(4, bytes(32), b"")
    parts = setup.commit_parts(stage.session, stranger)
    signed = replace(stranger, signature=sealing.sign(identity, "commit", *parts))
    with pytest.raises(RemoteProtocolError):
        client.receive(SERVER, Commitments((stage.commit, signed)))


def test_key_share_of_a_client_that_did_not_commit_is_refused() -> None:
    """The server shows client 1 a list without 4's commitment, and later 4's key share."""
    _, client, held = client_in(ClientState.COMMITTED)
    client.receive(SERVER, replace(held[0], commits=held[0].commits[:3]))
    _, _, complete = client_in(ClientState.REVEALED)
    with pytest.raises(RemoteProtocolError):
        client.receive(SERVER, complete[0])
    client.receive(SERVER, replace(complete[0], reveals=complete[0].reveals[:3]))
    assert client.state is ClientState.READY


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


def sent(outputs: Sequence[Output]) -> list[Message]:
    """Return the messages among outputs."""
    return [output.message for output in outputs if isinstance(output, Send)]


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
