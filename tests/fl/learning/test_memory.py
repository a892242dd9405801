"""Memory of a round with a long vector, in multiples of the float32 vector.

A client may take six, the server six and one running sum, however many clients there are.
"""

import pytest

from benchmarks.memory import LIMIT, client_peak, running_sum_size, server_peak

SIZE = 10_000_000


@pytest.fixture(scope="module")
def servers() -> dict[int, float]:
    return {clients: server_peak(SIZE, clients, capacity=8) for clients in (2, 8)}


def test_a_client_stays_within_six_vectors() -> None:
    assert 1 < client_peak(SIZE, 8) <= LIMIT


def test_the_server_stays_within_six_vectors_and_one_running_sum(
    servers: dict[int, float],
) -> None:
    assert 1 < servers[8] <= LIMIT + running_sum_size(SIZE, 8)


def test_the_server_needs_no_more_for_more_clients(servers: dict[int, float]) -> None:
    assert servers[8] == pytest.approx(servers[2], rel=0.02)
