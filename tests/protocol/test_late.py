"""Clients that join after the set-up, or come back without their share of the key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mphe.errors import DuplicateMessage, RemoteProtocolError, UnexpectedSender
from mphe.roles.machine import Send
from mphe.roles.rounds.outcomes import Admitted, Summed
from mphe.roles.setup.client import SetupClient, State
from mphe.roles.setup.server import SetupDone
from mphe.wire.messages import SERVER, Commit, DecryptionRequest, Join, Message, Welcome
from tests.simulation import Simulation


def without(index: int, n: int = 4, t: int = 2) -> Simulation:
    """Return a session that was set up without one client."""
    simulation = Simulation(n, t)
    simulation.vanish_before(index, Join)
    assert isinstance(simulation.run_setup(), SetupDone)
    simulation.silent.clear()
    return simulation


def newcomer(simulation: Simulation, index: int, label: str = "again") -> SetupClient:
    """Return a fresh process of a client on the roster."""
    client = SetupClient(
        index,
        simulation.plan,
        simulation.identities[index],
        simulation.roster,
        simulation.hedge(f"{label}/{index}"),
    )
    simulation.clients[index] = client
    return client


def join(simulation: Simulation, index: int) -> SetupClient:
    """Let a client join now."""
    client = newcomer(simulation, index)
    simulation.push(index, client.start())
    simulation.pump()
    return client


def total_of(simulation: Simulation, *indices: int) -> Summed:
    """Run a round with these clients and check its sum."""
    updates = simulation.random_updates(indices)
    end = simulation.run_round(updates, present=indices)
    assert isinstance(end, Summed), end
    assert np.array_equal(end.total, sum(updates[index] for index in end.contributors))
    return end


def test_a_client_that_joins_after_the_setup_contributes_from_the_next_round() -> None:
    simulation = without(3)
    assert total_of(simulation, 1, 2, 4).contributors == (1, 2, 4)
    client = join(simulation, 3)
    assert client.state is State.OPEN
    assert (SERVER, Admitted(3)) in simulation.events
    assert simulation.aggregator is not None and 3 in simulation.aggregator.members
    assert total_of(simulation, 1, 2, 3, 4).contributors == (1, 2, 3, 4)


def test_a_late_client_holds_no_share_and_is_never_asked() -> None:
    simulation = without(1)
    join(simulation, 1)
    assert simulation.keys[1].share is None
    assert 1 not in simulation.decryptors
    for _ in range(3):
        total_of(simulation, 1, 2, 3, 4)
    asked = {r for _, r, m in simulation.log if isinstance(m, DecryptionRequest) and m.round}
    assert 1 not in asked


def test_a_client_that_comes_back_without_its_share_is_not_asked_any_more() -> None:
    simulation = Simulation(4, 2)
    simulation.run_setup()
    total_of(simulation, 1, 2, 3, 4)
    join(simulation, 1)
    seen = len(simulation.log)
    assert total_of(simulation, 1, 2, 3, 4).contributors == (1, 2, 3, 4)
    late = simulation.log[seen:]
    assert 1 not in {r for _, r, m in late if isinstance(m, DecryptionRequest)}


def test_a_client_that_joins_while_the_others_commit_is_welcomed_at_the_end() -> None:
    simulation = Simulation(4, 2)
    client = simulation.clients[3]
    # The others wait no longer for client 3, which arrives with their first commitment.
    simulation.push(SERVER, simulation.server.lost(3))

    def arrive(_: int, receiver: int, message: Message) -> list[Message]:
        if isinstance(message, Commit) and client.state is State.NEW:
            simulation.push(3, client.start())
        return [message]

    simulation.intercept = arrive
    for index in (1, 2, 4):
        simulation.push(index, simulation.clients[index].start())
    simulation.pump()
    assert simulation.session.qualified == (1, 2, 4)
    assert simulation.session.admitted == (3,)
    assert client.state is State.OPEN
    assert total_of(simulation, 1, 2, 3, 4).contributors == (1, 2, 3, 4)


def test_nobody_joins_for_another_client() -> None:
    simulation = without(3)
    assert simulation.aggregator is not None
    with pytest.raises(UnexpectedSender):
        simulation.aggregator.receive(4, Join(3, b"", b"", b""))
    assert 3 not in simulation.aggregator.members


def test_the_welcome_lists_nobody_who_left_while_others_joined() -> None:
    simulation = Simulation(4, 2)
    simulation.push(3, simulation.clients[3].start())
    simulation.pump()
    simulation.vanish(3)
    for index in (1, 2, 4):
        simulation.push(index, simulation.clients[index].start())
    simulation.pump()
    client = newcomer(simulation, 3)
    client.start()
    client.receive(SERVER, simulation.session.welcome)
    assert client.state is State.OPEN


def test_nobody_joins_in_another_epoch() -> None:
    simulation = without(3)
    assert simulation.aggregator is not None
    with pytest.raises(RemoteProtocolError, match="epoch 1"):
        simulation.aggregator.receive(3, Join(3, b"", b"", b"", 1))
    assert 3 not in simulation.aggregator.members


FORGERIES: dict[str, Callable[[Welcome], Welcome]] = {
    "another epoch": lambda w: replace(w, epoch=1),
    "a join left out": lambda w: replace(w, joins=w.joins[1:]),
    "a join altered": lambda w: replace(w, joins=(replace(w.joins[0], entropy=bytes(32)),)),
    "a commitment altered": lambda w: replace(
        w, commits=(replace(w.commits[0], commitment=bytes(32)), *w.commits[1:])
    ),
    "a part of the key left out": lambda w: replace(w, reveals=w.reveals[:-1]),
    "a part of the key altered": lambda w: replace(
        w,
        reveals=(replace(w.reveals[0], key_share=w.reveals[1].key_share), *w.reveals[1:]),
    ),
    "a part of the key twice": lambda w: replace(w, reveals=(w.reveals[0], *w.reveals)),
    "too few signatures": lambda w: replace(w, vouches=w.vouches[:1]),
    "one signature twice": lambda w: replace(w, vouches=(w.vouches[0], w.vouches[0])),
    "a signature of somebody else": lambda w: replace(
        w, vouches=(replace(w.vouches[0], signature=w.vouches[1].signature), *w.vouches[1:])
    ),
    "a signature of a stranger": lambda w: replace(
        w, vouches=(*w.vouches[:-1], replace(w.vouches[-1], index=9))
    ),
    "nothing": lambda w: Welcome((), (), (), (), ()),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_welcome_is_refused(forge: Callable[[Welcome], Welcome]) -> None:
    simulation = without(3)
    client = newcomer(simulation, 3)
    client.start()
    with pytest.raises(RemoteProtocolError):
        client.receive(SERVER, forge(simulation.session.welcome))
    # Nothing has changed, so the true one still opens the session.
    client.receive(SERVER, simulation.session.welcome)
    assert client.state is State.OPEN


def test_the_server_cannot_mix_two_sessions_of_the_same_clients() -> None:
    simulation, other = without(3), Simulation(4, 2)
    for index in other.clients:
        newcomer(other, index, "other")
    assert isinstance(other.run_setup(), SetupDone)
    assert other.session.transcript != simulation.session.transcript
    client = newcomer(simulation, 3)
    client.start()
    for part in ("joins", "commits", "reveals", "vouches"):
        forged = getattr(other.session.welcome, part)
        with pytest.raises(RemoteProtocolError):
            client.receive(SERVER, replace(simulation.session.welcome, **{part: forged}))


def test_joining_does_not_disturb_a_round_under_way() -> None:
    simulation = without(3)
    updates = simulation.random_updates((1, 2, 4))
    simulation.begin_round(updates, present=(1, 2, 4))
    client = newcomer(simulation, 3)
    (output,) = client.start()
    assert isinstance(output, Send)
    simulation.push(3, [output])
    simulation.pump()
    end = simulation.finish_round()
    assert isinstance(end, Summed) and end.contributors == (1, 2, 4)


def test_a_client_is_welcomed_once_a_round() -> None:
    simulation = without(3)
    aggregator = simulation.aggregator
    assert aggregator is not None
    (output,) = newcomer(simulation, 3).start()
    assert isinstance(output, Send)
    aggregator.receive(3, output.message)
    with pytest.raises(DuplicateMessage):
        aggregator.receive(3, output.message)
    aggregator.start_round(b"model", (1, 2, 4))
    assert aggregator.receive(3, output.message)


def test_a_round_does_not_wait_for_a_client_that_joins_anew_in_its_midst() -> None:
    simulation = Simulation(4, 2)
    simulation.run_setup()
    updates = simulation.random_updates()
    # Client 4 was sent the model, and then a new process of it joins, which knows no round.
    simulation.vanish(4, told=False)
    simulation.begin_round(updates, present=(1, 2, 3, 4))
    simulation.pump()
    aggregator = simulation.aggregator
    assert aggregator is not None and aggregator.waiting_for() == (4,)
    simulation.silent.clear()
    join(simulation, 4)
    end = simulation.finish_round()
    assert isinstance(end, Summed) and end.contributors == (1, 2, 3)
    assert np.array_equal(end.total, updates[1] + updates[2] + updates[3])
    assert total_of(simulation, 1, 2, 3, 4).contributors == (1, 2, 3, 4)
