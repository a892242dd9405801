"""Whom the round after a sum that was lost may hold, so that two sums show nobody's update.

Once decryption has begun, others may know a sum that the server does not. The next sum of updates
of the same model is subtracted from it: who is in one of them alone stands in the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

Clients = frozenset[int]
Split = Callable[[Collection[int]], Iterable[Collection[int]]]


def exposed(lost: Iterable[Clients], groups: Iterable[Collection[int]], fewest: int) -> Clients:
    """Return who stands with fewer than `fewest` in the difference to a sum that was lost.

    Args:
        lost: contributors of each lost sum.
        groups: contributors of each sum that is to be decrypted.
        fewest: updates that a sum must have.
    """
    pairs = [(before, frozenset(group)) for before in lost for group in groups]
    parts = [part for before, now in pairs for part in (before - now, now - before)]
    return frozenset().union(*(part for part in parts if len(part) < fewest))


def invited(
    lost: Collection[Clients], present: Collection[int], fewest: int, split: Split
) -> Clients:
    """Return the most of those present who may contribute together; nobody when none may.

    Args:
        lost: contributors of each lost sum.
        present: who can be reached.
        fewest: updates that a sum must have.
        split: returns the groups of contributors, at least `fewest` in all.
    """
    choices = [
        choice
        for choice in _choices(lost, frozenset(present), fewest)
        if len(choice) >= fewest and not exposed(lost, split(choice), fewest)
    ]
    return max(choices, key=len, default=frozenset())


def _choices(lost: Collection[Clients], present: Clients, fewest: int) -> Iterator[Clients]:
    """Yield all; then, for each lost sum, without newcomers, or without more of its members."""
    yield present
    yield present & frozenset().union(*lost)
    for before in lost:
        missing = fewest - len(before - present)
        left_out = frozenset(sorted(before & present)[-missing:] if missing > 0 else ())
        yield present & before
        yield present - left_out
        yield (present & before) - left_out
