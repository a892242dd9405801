"""Parts that the records of several roles have in common, each with its strict reader.

A class that holds something between two messages has `record()`, and `resume(record)`, by which
one that was just made takes the place of the one that the record is of. Of equal things the
records are equal: what has no order of its own is sorted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from mphe.arithmetic.ring import Element, Ring
from mphe.errors import EncodingError
from mphe.plan.plan import SlotLayout
from mphe.scheme import decryption

E = TypeVar("E", bound=Enum)


@dataclass(frozen=True)
class Count:
    """How often something happened to a client."""

    client: int
    count: int


@dataclass(frozen=True)
class ShareRecord:
    """A decryption share as ring elements, block after block, no byte of them dropped."""

    sender: int
    elements: bytes


def write_indices(indices: Iterable[int]) -> tuple[int, ...]:
    """Return a set of clients; integers of NumPy, which a caller may use, become Python's."""
    return tuple(sorted(map(int, indices)))


def read_indices(indices: Sequence[int], clients: int | None = None) -> set[int]:
    """Read `write_indices`; EncodingError unless sorted, distinct and, if so many, in 1..clients.

    Without `clients` the indices are those that the network knows, which nobody checks.
    """
    known = clients is None or all(1 <= index <= clients for index in indices)
    if list(indices) != sorted(set(indices)) or not known:
        raise EncodingError("a list of clients is not sorted, distinct and known")
    return set(indices)


def write_counts(counts: Mapping[int, int]) -> tuple[Count, ...]:
    """Return all counts but those of 0."""
    return tuple(Count(int(client), counts[client]) for client in sorted(counts) if counts[client])


def read_counts(counts: Sequence[Count]) -> Counter[int]:
    """Read `write_counts`; EncodingError unless they are of distinct clients, in their order."""
    read_indices([item.client for item in counts])
    return Counter({item.client: item.count for item in counts})


def write_shares(ring: Ring, shares: Mapping[int, Iterable[Element]]) -> tuple[ShareRecord, ...]:
    """Return the decryption shares of some clients."""
    return tuple(
        ShareRecord(sender, b"".join(map(ring.to_bytes, shares[sender])))
        for sender in sorted(shares)
    )


def read_shares(
    ring: Ring,
    layout: SlotLayout,
    shares: Sequence[ShareRecord],
    active: Collection[int],
    groups: int = 1,
) -> dict[int, list[Element]]:
    """Read `write_shares` of so many groups; EncodingError when one is malformed or unasked."""
    if not read_indices([share.sender for share in shares]) <= set(active):
        raise EncodingError("a decryption share is of a client that was not asked")
    return {
        share.sender: decryption.read_shares(ring, layout, share.elements, 0, groups)
        for share in shares
    }


def read_state(kind: type[E], value: str) -> E:
    """Return the state of this name; EncodingError when there is none."""
    try:
        return kind(value)
    except ValueError as error:
        raise EncodingError(f"there is no state {value[:40]!r}") from error
