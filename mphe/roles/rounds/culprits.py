"""Who must have cheated, when every wrong result had one of several suspects behind it.

An explanation is a set of at most `most` parties that meets every piece of evidence. The real
culprits are one whenever no more of them cheat, so a party that is in every explanation is a
culprit, and nobody honest ever is in every one. Nothing else is a reason to name anybody: neither
the suspects that all pieces of evidence share nor those that are left when others once did well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mphe.errors import EncodingError
from mphe.roles import kept

STEPS = 1 << 20
"""Comparisons for one question, a fraction of a second; beyond them nobody is named for now."""


@dataclass(frozen=True)
class SuspicionsRecord:
    """`Suspicions` between two messages: the pieces of evidence, each sorted."""

    evidence: tuple[tuple[int, ...], ...]


class Suspicions:
    """What was wrong so far, and whose doing it must have been."""

    def __init__(self, most: int) -> None:
        """Begin without evidence; at most `most` parties cheat, or nobody is named.

        Raises:
            ValueError: most is negative.
        """
        if most < 0:
            raise ValueError(f"at most {most} culprits: write 0 or more")
        self._most = most
        self._evidence: list[frozenset[int]] = []
        self._overdrawn = False

    def add(self, suspects: Iterable[int]) -> None:
        """Take one piece of evidence: at least one of these parties cheated.

        Raises:
            ValueError: nobody is suspected.
        """
        suspected = frozenset(map(int, suspects))
        if not suspected:
            raise ValueError("what was wrong needs at least one suspect")
        if self._overdrawn or not self._explained_without(suspected):
            return  # Every explanation of the others explains this one too.
        self._evidence = [piece for piece in self._evidence if not suspected < piece]
        self._evidence.append(suspected)
        self._overdrawn = not self._explained_without(frozenset())

    def named(self) -> frozenset[int]:
        """Return the parties that are in every explanation; nobody when there is none."""
        try:
            candidates = _explanation(self._evidence, self._most) or frozenset()
        except _TooHard:
            return frozenset()
        return frozenset(
            party for party in candidates if not self._explained_without(frozenset({party}))
        )

    @property
    def overdrawn(self) -> bool:
        """Return whether there is no explanation: more cheat than was assumed."""
        return self._overdrawn

    def record(self) -> SuspicionsRecord:
        """Return what is to be kept."""
        return SuspicionsRecord(tuple(map(kept.write_indices, self._evidence)))

    def resume(self, record: SuspicionsRecord) -> None:
        """Take over what was kept; EncodingError when it makes no sense."""
        self._evidence = [frozenset(kept.read_indices(piece)) for piece in record.evidence]
        if not all(self._evidence):
            raise EncodingError("a piece of evidence is against nobody")
        self._overdrawn = not self._explained_without(frozenset())

    def _explained_without(self, absent: frozenset[int]) -> bool:
        """Return whether an explanation has none of `absent`, or may have none."""
        try:
            evidence = [piece - absent for piece in self._evidence]
            return _explanation(evidence, self._most) is not None
        except _TooHard:
            return True


class _TooHard(Exception):
    """The question has taken all its steps."""


def _explanation(evidence: list[frozenset[int]], most: int) -> frozenset[int] | None:
    """Return some set of at most `most` parties that meets all evidence, if there is one.

    Raises:
        _TooHard: none was found so far.
    """
    met: dict[int, int] = {}
    for place, piece in enumerate(evidence):
        for party in piece:
            met[party] = met.get(party, 0) | 1 << place
    return _Search(STEPS).cover({met[p]: p for p in sorted(met)}, (1 << len(evidence)) - 1, most)


class _Search:
    """A search that branches over who explains one piece of evidence, so at most `most` deep.

    A party is the set of the pieces of evidence that it explains, as the bits of an integer; of
    those that explain the same, one is enough.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def cover(self, parties: Mapping[int, int], left: int, most: int) -> frozenset[int] | None:
        """Return at most `most` parties that together explain all of `left`, if there are."""
        if not left:
            return frozenset()
        useful = {bits & left: party for bits, party in parties.items() if bits & left}
        sizes = sorted((bits.bit_count() for bits in useful), reverse=True)
        if sum(sizes[:most]) < left.bit_count():
            return None
        for bits in self._branches(useful, left):
            rest = self.cover(useful, left & ~bits, most - 1)
            if rest is not None:
                return rest | {useful[bits]}
        return None

    def _branches(self, useful: Mapping[int, int], left: int) -> list[int]:
        """Return the parties that explain the piece with the fewest suspects, the best first.

        Who explains nothing that another of them does not explain as well is left out.
        """
        self._spend(len(useful) * left.bit_count())
        pieces = [1 << place for place in range(left.bit_length()) if left >> place & 1]
        suspects = min(
            ([bits for bits in useful if bits & piece] for piece in pieces),
            key=len,
        )
        self._spend(len(suspects) ** 2)
        best: list[int] = []
        for bits in sorted(suspects, key=lambda bits: (-bits.bit_count(), bits)):
            if all(bits & ~other for other in best):
                best.append(bits)
        return best

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise _TooHard
