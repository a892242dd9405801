"""How the contributors of a round are split into groups (docs/protocol.md, Groups).

All clients stand in an order that follows from T, the draw and its salt, and are cut into runs, who
comes and who does not: so the server adds a contribution up where it belongs as it arrives. A run
with too few contributors joins the next one, and the last of all the one before it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from mphe.arithmetic.sampling import derive_seed
from mphe.wire.messages import Draw

MAX_DRAWS = 16
"""Draws that clients take part in: each new one is an equation more for single updates."""
SALT_BYTES = 32


def salt_digest(salt: bytes) -> bytes:
    """Return what is told of a salt when a round starts."""
    return derive_seed("salt", salt)


def announced(draw: Draw) -> Draw:
    """Return a draw as a round's start tells it: with the digest of its salt."""
    return replace(draw, salt=salt_digest(draw.salt)) if draw.groups > 1 else draw


def is_draw(draw: Draw, groups: int) -> bool:
    """Return whether a draw has the form that this many groups call for."""
    if groups == 1:
        return draw == Draw()
    is_numbered = 1 <= draw.number <= MAX_DRAWS
    return is_numbered and draw.groups == groups and len(draw.salt) == SALT_BYTES


def runs(session: bytes, draw: Draw, clients: int) -> list[tuple[int, ...]]:
    """Return the clients 1..n of each run, sorted; the sizes differ by 1 at most.

    Args:
        session: T.
        draw: with its salt.
        clients: n.
    """
    everybody = range(1, clients + 1)
    if draw.groups == 1:
        return [tuple(everybody)]
    head = (session, draw.number.to_bytes(4, "big"), draw.salt)
    places = {i: derive_seed("partition", *head, i.to_bytes(4, "big")) for i in everybody}
    order = sorted(everybody, key=places.__getitem__)
    size, longer = divmod(clients, draw.groups)
    sizes = [size + (run < longer) for run in range(draw.groups)]
    return [tuple(sorted(order[a:b])) for a, b in pairwise(accumulate(sizes, initial=0))]


def merge(counts: Sequence[int], smallest: int) -> list[range]:
    """Return the places of the runs that make up each group.

    Args:
        counts: contributors of each run, in all at least `smallest`.
        smallest: contributors that a group must have.
    """
    groups: list[range] = []
    start = together = 0
    for place, count in enumerate(counts):
        together += count
        if together >= smallest:
            groups.append(range(start, place + 1))
            start, together = place + 1, 0
    if start < len(counts):
        last = groups.pop() if groups else range(0)
        groups.append(range(last.start, len(counts)))
    return groups


def split(
    parts: Sequence[Collection[int]], contributors: Collection[int], smallest: int
) -> tuple[tuple[int, ...], ...]:
    """Return the groups of these contributors, each sorted; `parts` are the runs."""
    there = [sorted(set(run) & set(contributors)) for run in parts]
    groups = merge([len(run) for run in there], smallest)
    return tuple(tuple(sorted(i for place in group for i in there[place])) for group in groups)
