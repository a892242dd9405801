"""Limits of frames: every honest message fits, and not much more does."""

from __future__ import annotations

from typing import Any

import pytest

from mphe.wire import codec
from mphe.wire.messages import SERVER, Commit, Join, Ready, Reveal
from mphe.wire.sizes import CLIENT_HEADS, MAX_METRICS, longest_of_client, longest_of_server
from tests.simulation import Simulation

SETUP = (Join, Commit, Reveal, Ready)


@pytest.mark.parametrize(
    "session",
    [
        {},
        {"encryption": "direct"},
        {"min_contributors": 3, "verified": True, "max_corrupt": 1},
        {"verify_clients": True},
        {"max_groups": 2, "min_contributors": 2},
    ],
    ids=["hybrid", "direct", "verified", "proving", "groups"],
)
def test_honest_messages_fit_and_little_more_does(session: dict[str, Any]) -> None:
    simulation = Simulation(4, 3, 3000, **session)
    simulation.run_setup()
    simulation.run_round(simulation.random_updates())
    lengths: dict[tuple[str, bool], int] = {}
    for sender, _, message in simulation.log:
        side = "server" if sender == SERVER else "client"
        key = side, side == "client" and not isinstance(message, SETUP)
        lengths[key] = max(lengths.get(key, 0), len(codec.encode(message)))
    plan = simulation.plan
    assert lengths["server", False] <= longest_of_server(plan, 0)
    for is_open in (False, True):
        honest, limit = lengths["client", is_open], longest_of_client(plan, is_open)
        room = CLIENT_HEADS + MAX_METRICS + 4 * (1 << 11)
        if not is_open:
            room += honest // 4  # of n receivers, one is the sender itself
        assert honest <= limit <= honest + room


def test_clients_may_send_far_less_than_the_server() -> None:
    """What one client can make the server hold follows from what it may send."""
    plan = Simulation(100, 60, 200_000, rounds=10).plan
    server, client = longest_of_server(plan, 800_000), longest_of_client(plan, is_open=True)
    assert client < server / 10
