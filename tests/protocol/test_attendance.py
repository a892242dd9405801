"""One straggler does not make every round wait for its deadline."""

from __future__ import annotations

import numpy as np

from mphe.roles.attendance import Attendance
from mphe.roles.rounds.collecting import Outdated
from mphe.roles.rounds.outcomes import Summed
from mphe.wire.messages import SERVER, RoundStart
from tests.protocol.support import aggregator_of, collecting, ready
from tests.simulation import Simulation


def test_a_tardy_client_is_not_awaited_until_it_is_punctual_again() -> None:
    attendance = Attendance()
    attendance.begin((1, 2, 3), 2)
    attendance.arrived(1)
    attendance.arrived(2)
    attendance.deadline()
    attendance.begin((1, 2, 3), 2)
    assert attendance.expected == {1, 2} and attendance.present == {1, 2, 3}
    attendance.arrived(3)
    attendance.begin((1, 2, 3), 2)
    assert attendance.expected == {1, 2, 3}


def test_a_hung_client_is_awaited_ever_more_rarely() -> None:
    attendance, awaited = Attendance(), []
    for round in range(1, 40):
        attendance.begin((1, 2, 3), 2)
        attendance.arrived(1)
        attendance.arrived(2)
        if 3 in attendance.expected:
            awaited.append(round)
        attendance.deadline()
    assert awaited == [1, 3, 6, 11, 20, 37]


def test_a_client_that_just_missed_the_close_is_awaited_again() -> None:
    attendance = Attendance()
    attendance.begin((1, 2, 3), 2)
    attendance.deadline()
    attendance.just_missed(3)
    attendance.begin((1, 2, 3), 1)
    assert attendance.expected == {3}


def test_a_client_that_always_just_misses_does_not_cost_every_round_its_deadline() -> None:
    attendance, awaited = Attendance(), []
    for round in range(1, 40):
        attendance.begin((1, 2, 3), 2)
        attendance.arrived(1)
        attendance.arrived(2)
        if 3 in attendance.expected:
            awaited.append(round)
        attendance.deadline()
        attendance.just_missed(3)
    assert awaited == [1, 2, 5, 10, 19, 36]


def test_tardy_clients_are_awaited_when_the_others_are_too_few() -> None:
    attendance = Attendance()
    attendance.begin((1, 2, 3), 3)
    attendance.arrived(1)
    attendance.deadline()
    attendance.begin((1, 2, 3), 3)
    assert attendance.expected == {1, 2, 3}


def test_a_hung_client_costs_one_deadline_and_then_none() -> None:
    simulation = Simulation(4, 2)
    simulation.run_setup()
    updates = simulation.random_updates()
    present = (1, 2, 3, 4)
    simulation.vanish(4, told=False)
    simulation.begin_round(updates, present=present)
    simulation.pump()
    assert simulation.aggregator is not None
    assert simulation.aggregator.waiting_for() == (4,)
    assert isinstance(simulation.finish_round(), Summed)
    # The second round ends without any deadline.
    simulation.begin_round(updates, present=present)
    simulation.pump()
    assert simulation.aggregator.waiting_for() == ()
    end = simulation.finish_round()
    assert isinstance(end, Summed) and end.contributors == (1, 2, 3)
    assert np.array_equal(end.total, updates[1] + updates[2] + updates[3])


def test_a_tardy_client_that_is_in_time_is_counted() -> None:
    simulation = Simulation(3, 2)
    simulation.run_setup()
    updates = simulation.random_updates()
    simulation.vanish(3, told=False)
    assert isinstance(simulation.run_round(updates, present=(1, 2, 3)), Summed)
    simulation.silent.clear()
    # The first of all to answer, though nobody waits for it.
    assert simulation.aggregator is not None
    outputs = simulation.aggregator.start_round(b"model", (1, 2, 3))
    for output in outputs:
        message = getattr(output, "message", None)
        if isinstance(message, RoundStart):
            simulation.contributors[output.receiver].receive(0, message)  # type: ignore[union-attr]
    third = simulation.contribution(3, 2, updates[3])
    assert not any(isinstance(o, Outdated) for o in simulation.aggregator.receive(3, third))
    assert simulation.aggregator.waiting_for() == (1, 2)


def test_who_contributes_right_after_the_close_is_awaited_in_the_next_round() -> None:
    """And who says nothing at all is not."""
    for says_something in (True, False):
        simulation = ready(3, 2)
        made = collecting(simulation, (1, 2))
        aggregator = aggregator_of(simulation)
        closed = aggregator.deadline_passed()
        if says_something:
            assert aggregator.receive(3, made[3]) == [Outdated(3)]
        simulation.push(SERVER, closed)
        simulation.pump()
        simulation.silent.clear()
        aggregator.start_round(b"model", simulation.identities)
        assert (3 in aggregator.waiting_for()) is says_something
