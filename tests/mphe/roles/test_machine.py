"""mphe.roles.machine: the tables are the truth, for every role."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

import pytest

from mphe.errors import LocalProtocolError, MalformedMessage, RemoteProtocolError
from mphe.roles.machine import Accepts, Machine, Moves, Output
from mphe.roles.rounds.aggregator import Aggregator
from mphe.roles.rounds.contributor import Contributor
from mphe.roles.setup.client import SetupClient
from mphe.roles.setup.server import SetupServer
from mphe.wire.messages import Finish, RoundEnd
from tests.protocol.support import ready
from tests.simulation import snapshot

ROLES: list[type[Machine[Any]]] = [
    SetupClient,
    SetupServer,
    Contributor,
    Aggregator,
]


class Step(Enum):
    FIRST = "first"
    LAST = "last"


class Example(Machine[Step]):
    """Moves on with the first end of a round that it hears of."""

    ACCEPTS: ClassVar[Accepts] = {Step.FIRST: {RoundEnd, Finish}, Step.LAST: {RoundEnd}}
    MOVES: ClassVar[Moves] = {Step.FIRST: {"end": Step.LAST}, Step.LAST: {}}

    def __init__(self) -> None:
        super().__init__(Step.FIRST)
        self.heard: list[int] = []
        self._handlers = {RoundEnd: self._on_end, Finish: self._on_finish}

    def _on_end(self, _: int, message: RoundEnd) -> list[Output]:
        self._move("end")
        self.heard.append(message.round)
        return []

    def _on_finish(self, sender: int, _: Finish) -> list[Output]:
        raise MalformedMessage(sender, "not here")


@pytest.mark.parametrize("role", ROLES)
def test_every_state_has_its_line_in_both_tables(role: type[Machine[Any]]) -> None:
    kind: type[Enum] = type(next(iter(role.ACCEPTS)))
    states = list(kind)
    assert list(role.ACCEPTS) == states and list(role.MOVES) == states
    for moves in role.MOVES.values():
        assert set(moves.values()) <= set(states)


@pytest.mark.parametrize("role", ROLES)
def test_every_state_but_the_first_is_reached(role: type[Machine[Any]]) -> None:
    first, *rest = role.MOVES
    reached = {state for moves in role.MOVES.values() for state in moves.values()}
    assert set(rest) <= reached | {first}


def test_every_message_that_a_state_takes_has_a_handler() -> None:
    simulation = ready(3, 2)
    assert simulation.aggregator is not None
    roles: list[Machine[Any]] = [
        simulation.clients[1],
        simulation.server,
        simulation.contributors[1],
        simulation.aggregator,
    ]
    assert [type(role) for role in roles] == ROLES
    for role in roles:
        assert set().union(*role.ACCEPTS.values()) == set(role._handlers)


def test_a_move_that_the_table_lacks_is_refused_and_changes_nothing() -> None:
    example = Example()
    assert example.receive(0, RoundEnd(1, ())) == [] and example.state is Step.LAST
    before = snapshot(example)
    with pytest.raises(LocalProtocolError, match="end is not possible now"):
        example.receive(0, RoundEnd(2, ()))
    assert snapshot(example) == before


def test_a_handler_that_refuses_and_a_message_out_of_turn_change_nothing() -> None:
    example = Example()
    before = snapshot(example)
    with pytest.raises(MalformedMessage):
        example.receive(0, Finish("over"))
    example.receive(0, RoundEnd(1, ()))
    with pytest.raises(RemoteProtocolError, match="Finish is not expected now"):
        example.receive(0, Finish("over"))
    assert snapshot(example) != before and example.heard == [1]
