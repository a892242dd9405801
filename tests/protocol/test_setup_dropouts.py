"""Key set-up: which drop-outs it survives, and who is named when it does not."""

from __future__ import annotations

import numpy as np
import pytest

from mphe.roles.rounds.outcomes import Summed
from mphe.roles.setup.server import SetupState
from mphe.wire.messages import Commit, DecryptionShare, Join, Message, Ready, Reveal
from tests.protocol.support import done, failed, start
from tests.simulation import Simulation

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


@pytest.mark.parametrize("when_kind", [stage[:2] for stage in STAGES])
def test_a_key_of_few_needs_the_signatures_of_more_than_half(when_kind: tuple[str, type]) -> None:
    """Two of six decrypt, but v = 4 must sign; whoever has signed may vanish."""
    for count in (2, 3, 4):
        simulation = Simulation(6, 2)
        assert simulation.parameters.signatures == 4
        gone = tuple(range(1, count + 1))
        for index in gone:
            dropping(simulation, index, *when_kind, told=False)
        if count == 2 or when_kind in {("after", Ready), ("before", DecryptionShare)}:
            assert done(simulation).missing == gone
        else:
            error = failed(simulation).error
            assert error.missing == gone
            left = f"{6 - count} of 6 decryptors are left, 4 are needed to sign the key"
            assert left in str(error)


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
    if server.state is SetupState.CONFIRMING:
        server.receive(1, answers[1, 3])
    assert server.state is SetupState.OPEN
