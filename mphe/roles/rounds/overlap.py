"""Whom the round after a sum that was lost may hold, so that two sums show nobody's update.

Once decryption has begun, others may know a sum that the server does not. The next sum of updates
of the same model is subtracted from it: who is in one of them alone stands in the difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

Clients = frozenset[int]


def exposed(lost: Iterable[Clients], contributors: Collection[int], fewest: int) -> Clients:
    """Return who stands with fewer than `fewest` in the difference to a sum that was lost."""
    now = frozenset(contributors)
    parts = [part for before in lost for part in (before - now, now - before)]
    return frozenset().union(*(part for part in parts if len(part) < fewest))


def invited(lost: Collection[Clients], present: Collection[int], fewest: int) -> Clients:
    """Return the most of those present who may contribute together; nobody when none may."""
    choices = [
        choice
        for choice in _choices(lost, frozenset(present), fewest)
        if len(choice) >= fewest and not exposed(lost, choice, fewest)
    ]
    return max(choices, key=len, default=frozenset())


def _choices(lost: Collection[Clients], present: Clients, fewest: int) -> Iterator[Clients]:
    """Yield all; then, for each lost sum, without newcomers, or without more of its members."""
    yield present
    for before in lost:
        missing = fewest - len(before - present)
        left_out = frozenset(sorted(before & present)[-missing:] if missing > 0 else ())
        yield present & before
        yield present - left_out
        yield (present & before) - left_out
