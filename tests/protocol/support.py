"""What the tests of the protocol share: samples, parties in a given state, rounds by hand."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from mphe.arithmetic.ring import Integers
from mphe.roles.rounds.aggregator import Aggregator
from mphe.roles.rounds.outcomes import Abandoned, Summed
from mphe.roles.setup.client import SetupClient
from mphe.roles.setup.client import State as ClientState
from mphe.roles.setup.server import SetupAbandoned, SetupDone, SetupServer, SetupState
from mphe.wire.codec import MESSAGE_TYPES
from mphe.wire.messages import SERVER, Contribution, DecryptionRequest, Message
from tests.simulation import Simulation


def example(hint: Any) -> Any:
    """Return a small value of a declared type: a message, a record, a list or a field."""
    if get_origin(hint) is tuple:
        item = example(get_args(hint)[0])
        return (item, item) if is_dataclass(item) else (1, 2, 300)
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        return hint(**{field.name: example(hints[field.name]) for field in fields(hint)})
    return {int: 1, bytes: b"bytes" * 8, str: "a reason"}[hint]


SAMPLES: dict[type, Message] = {kind: example(kind) for kind in MESSAGE_TYPES}
"""One short message of each type."""


# -- key set-up ------------------------------------------------------------------------------------


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


def server_in(state: SetupState) -> tuple[Simulation, SetupServer, list[Any]]:
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
    if state is SetupState.FAILED:
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


# -- rounds ----------------------------------------------------------------------------------------

SIZES = [(n, t) for n in range(2, 7) for t in range(2, n + 1)]
MODES = ("hybrid", "direct")


def ready(n: int, t: int, length: int = 60, **options: object) -> Simulation:
    """Return a simulation whose key is confirmed."""
    simulation = Simulation(n, t, length, **options)  # type: ignore[arg-type]
    simulation.run_setup()
    assert simulation.aggregator is not None
    return simulation


def aggregator_of(simulation: Simulation) -> Aggregator:
    """Return the server's role in the rounds."""
    assert simulation.aggregator is not None
    return simulation.aggregator


def collecting(simulation: Simulation, senders: tuple[int, ...] = ()) -> dict[int, Contribution]:
    """Start a round by hand, deliver some contributions; return all."""
    aggregator = aggregator_of(simulation)
    aggregator.start_round(b"model", simulation.identities)
    updates = simulation.random_updates()
    made = {i: simulation.contribution(i, aggregator.round, updates[i]) for i in updates}
    for index in senders:
        aggregator.receive(index, made[index])
    return made


def total_of(updates: dict[int, Integers], contributors: tuple[int, ...]) -> Integers:
    """Return the plain sum of exactly these updates."""
    return sum((updates[i] for i in contributors), np.zeros_like(updates[contributors[0]]))


def assert_exact(end: Summed | Abandoned, updates: dict[int, Integers], *who: int) -> None:
    """The round gave the sum of exactly these updates, to the last bit."""
    assert isinstance(end, Summed), end
    assert end.contributors == who
    assert np.array_equal(end.total, total_of(updates, who))
