"""Verified sessions, and what the clients of one sent."""

from __future__ import annotations

from mphe.roles.rounds.aggregator import Aggregator
from mphe.roles.rounds.contributor import TrainOn
from mphe.roles.verified.evidence import c1_digest
from mphe.wire.messages import (
    Contribution,
    Message,
    NextPledge,
    RoundStart,
)
from tests.protocol.support import aggregator_of, ready
from tests.simulation import Simulation


def verified(n: int = 4, t: int = 3, length: int = 60, **options: object) -> Simulation:
    """Return a session that verifies aggregates, its key confirmed."""
    return ready(n, t, length, **{"verified": True, **options})


def sent(simulation: Simulation, kind: type[Message]) -> list[tuple[int, int, Message]]:
    """Return (sender, receiver, message) of all messages of a kind, in their order."""
    return [entry for entry in simulation.log if isinstance(entry[2], kind)]


def listed(simulation: Simulation, round: int) -> tuple[int, ...]:
    """Return who was told to contribute to a round; everybody is told the same."""
    starts = {m.pledges for _, _, m in sent(simulation, RoundStart) if m.round == round}  # type: ignore[union-attr]
    (pledges,) = starts
    return tuple(pledge.index for pledge in pledges)


def trained(simulation: Simulation, index: int) -> list[int]:
    """Return the rounds in which a client was told to train."""
    return [e.round for i, e in simulation.events if i == index and isinstance(e, TrainOn)]


def assert_no_c1_twice(simulation: Simulation) -> None:
    """No c1 was shown in two rounds, and each was pledged before anything else was shown."""
    shown: set[bytes] = set()
    pledged: dict[int, list[bytes]] = {}
    for sender, _, message in simulation.log:
        if isinstance(message, NextPledge):
            pledged.setdefault(sender, []).append(message.pledge.digest)
        elif isinstance(message, Contribution):
            assert message.c1 not in shown
            shown.add(message.c1)
            assert c1_digest(message.transcript, message.c1) in pledged[sender]
    assert shown


def unpledged(index: int) -> tuple[Simulation, Aggregator]:
    """Return a session before its first round, in which one client has not pledged yet."""
    simulation = Simulation(4, 3, verified=True)
    simulation.intercept = lambda s, _, m: [] if s == index and isinstance(m, NextPledge) else [m]
    simulation.run_setup()
    simulation.intercept = None
    return simulation, aggregator_of(simulation)
