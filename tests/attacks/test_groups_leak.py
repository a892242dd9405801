"""What groups, new draws and sit-outs tell a server, and how groups can be chosen.

Attack: a curious server takes the sums of all groups of all rounds as equations for what persists
in single updates, and solves them by least squares. A lying one looks for a salt, or lets colluders
drop out, so that a victim is alone with colluders.
Claim: while a draw stays, the estimate never gets better than the mean of a group of four, cosine
0.5. Two honest contributors are in every group if min_contributors is two more than the colluders.
Weakened: groups that are drawn anew every round give away what persists; so does sitting out in
turn; with more colluders a victim is soon alone with them. That much is in SECURITY.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

import numpy as np
import pytest

from mphe.arithmetic.sampling import derive_seed
from mphe.scheme import partition
from mphe.wire.messages import Draw

T = bytes(32)
CLIENTS, GROUPS, SMALLEST = 32, 8, 4
VALUES = 400
Row = tuple[int, ...]


def drawn(number: int, label: str = "leak") -> list[Row]:
    salt = derive_seed("salt of a test", label.encode(), bytes([number]))
    return partition.runs(T, Draw(number, GROUPS, salt), CLIENTS)


def cosine_of_estimate(rounds: list[list[Row]], clients: int, persists: float) -> float:
    """Return the mean cosine between what persists in an update and its estimate.

    Args:
        rounds: the sets whose sums the server learns, round by round.
        clients: n.
        persists: the part of the variance of an update that is the same in all rounds.
    """
    rng = np.random.default_rng(0)
    own = rng.standard_normal((clients, VALUES))
    equations, sums = [], []
    for sets in rounds:
        fresh = rng.standard_normal((clients, VALUES))
        updates = np.sqrt(persists) * own + np.sqrt(1 - persists) * fresh
        for members in sets:
            row = np.zeros(clients)
            row[[i - 1 for i in members]] = 1
            equations.append(row)
            sums.append(row @ updates)
    # The best linear estimate from these sums; one that knows the variances.
    a, y = np.array(equations), np.array(sums)
    noise = (1 - persists) * np.diag(a.sum(axis=1)) + 1e-9 * np.eye(len(a))
    estimate = np.sqrt(persists) * a.T @ np.linalg.solve(persists * a @ a.T + noise, y)
    lengths = np.linalg.norm(estimate, axis=1) * np.linalg.norm(own, axis=1)
    return float(np.mean(np.sum(estimate * own, axis=1) / lengths))


def test_a_draw_that_stays_never_tells_more_than_the_mean_of_a_group() -> None:
    for rounds in (1, 6, 60):
        cosine = cosine_of_estimate([drawn(1)] * rounds, CLIENTS, 0.9)
        assert 0.45 < cosine < 0.55


@pytest.mark.parametrize(
    ("persists", "rounds", "least"),
    [(1.0, 6, 0.99), (0.9, 6, 0.85), (0.9, 16, 0.95), (0.5, 16, 0.7)],
)
def test_new_groups_in_every_round_give_away_what_persists(
    persists: float, rounds: int, least: float
) -> None:
    insecure_redrawn = [drawn(number) for number in range(1, rounds + 1)]
    assert cosine_of_estimate(insecure_redrawn, CLIENTS, persists) > least


def test_the_most_draws_that_clients_take_part_in_already_give_away_much() -> None:
    """So the limit bounds nothing by itself when updates persist: only noise does."""
    most = [drawn(number) for number in range(1, partition.MAX_DRAWS + 1)]
    assert cosine_of_estimate(most, CLIENTS, 0.9) > 0.95


def test_sitting_out_in_turn_gives_away_what_persists() -> None:
    everybody = tuple(range(1, 9))
    turns = [[tuple(i for i in everybody if i != out)] for out in everybody]
    assert cosine_of_estimate([[everybody]] * 9, 8, 0.9) < 0.4
    assert cosine_of_estimate([[everybody], *turns], 8, 1.0) > 0.99
    assert cosine_of_estimate([[everybody], *turns], 8, 0.9) > 0.7


# -- who is with whom ------------------------------------------------------------------------------


Split = Callable[[str, set[int]], Sequence[Row]]
"""The groups of those who are there, from the name of a salt."""


def ours(label: str, there: set[int]) -> Sequence[Row]:
    return partition.split(drawn(1, label), there, SMALLEST)


def insecure_by_those_who_came(label: str, there: set[int]) -> Sequence[Row]:
    """Let the order depend on who is there, so that each who stays away draws anew."""
    order = sorted(there, key=lambda i: derive_seed(label, bytes(sorted(there)), bytes([i])))
    size, longer = divmod(len(order), min(GROUPS, len(order) // SMALLEST))
    starts = [g * size + min(g, longer) for g in range(len(order) // size + 1)]
    return [tuple(order[a:b]) for a, b in pairwise(starts)]


def exposed(groups: Sequence[Row], colluders: set[int]) -> bool:
    """Return whether the group of client 1 has no other honest member."""
    group = next(group for group in groups if 1 in group)
    return set(group) - {1} <= colluders


def by_dropouts(split: Split, colluders: int, trials: int) -> int:
    """Return in how many draws some colluders can stay away so that client 1 is exposed."""
    corrupt, everybody = set(range(2, 2 + colluders)), set(range(1, CLIENTS + 1))
    chosen = [set(gone) for k in range(colluders + 1) for gone in combinations(corrupt, k)]
    return sum(
        any(exposed(split(f"dropouts {trial}", everybody - gone), corrupt) for gone in chosen)
        for trial in range(trials)
    )


def test_with_two_more_than_the_colluders_nobody_is_alone_with_them() -> None:
    """Two colluders, groups of four: whatever the salt, and whoever stays away."""
    assert by_dropouts(ours, SMALLEST - 2, 300) == 0
    assert by_dropouts(insecure_by_those_who_came, SMALLEST - 2, 300) == 0


def test_colluders_that_stay_away_rarely_expose_a_victim_since_places_stay_empty() -> None:
    assert by_dropouts(ours, 10, 20) <= 3
    assert by_dropouts(insecure_by_those_who_came, 10, 10) >= 7


@pytest.mark.parametrize("colluders", [3, 10])
def test_a_lying_server_finds_a_salt_that_exposes_a_victim_to_enough_colluders(
    colluders: int,
) -> None:
    everybody, corrupt = set(range(1, CLIENTS + 1)), set(range(2, 2 + colluders))
    tries = next(
        trial for trial in range(40_000) if exposed(ours(f"ground {trial}", everybody), corrupt)
    )
    assert tries < (40_000 if colluders == 3 else 1_000)
