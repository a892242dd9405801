"""The sums of a round: one for each run of clients, joined to those of groups at the close."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mphe.arithmetic.ring import Element, Integers, Ring
from mphe.errors import EncodingError
from mphe.plan.plan import Plan
from mphe.scheme import partition
from mphe.scheme.packing import BlockMap
from mphe.scheme.running_sum import Parsed, RunningSum, SumRecord
from mphe.wire.messages import Contribution

SumsRecord = tuple[tuple[SumRecord, ...], ...]


class GroupSums:
    """Running sums side by side; `parts` are the clients of each."""

    def __init__(self, plan: Plan, crs_seed: bytes, blocks: BlockMap = map) -> None:
        """Prepare what all sums share; `blocks` computes those of a sum."""
        self._empty = RunningSum(plan, crs_seed, blocks)
        self._smallest = plan.session.min_contributors
        self._sums: list[RunningSum] = []
        self.parts: list[tuple[int, ...]] = []

    @property
    def ring(self) -> Ring:
        """The threshold ring."""
        return self._empty.ring

    def record(self) -> SumsRecord:
        """Return what is to be kept."""
        return tuple(running.record() for running in self._sums)

    def resume(
        self, parts: Sequence[tuple[int, ...]], records: SumsRecord, there: set[int]
    ) -> None:
        """Take over what was kept of these parts; EncodingError unless it is of who was there."""
        if len(records) != len(parts):
            raise EncodingError("the sums are not those of the groups")
        self.begin(parts)
        for part, running, kept in zip(parts, self._sums, records, strict=True):
            running.resume(kept)
            if running.is_empty != there.isdisjoint(part):
                raise EncodingError("the sums are not those of the contributors")

    def begin(self, parts: Sequence[tuple[int, ...]]) -> None:
        """Forget all sums, and begin one for each part."""
        self.parts = list(parts)
        self._sums = [self._empty.another() for _ in parts]

    def clear(self) -> None:
        """Forget all sums."""
        self.begin(())

    def parse(self, message: Contribution) -> Parsed:
        """Return the elements of a contribution; EncodingError when it is malformed."""
        return self._empty.parse(message)

    def add(self, sender: int, parsed: Parsed) -> None:
        """Add a contribution to the sum of its client's part."""
        place = next(place for place, part in enumerate(self.parts) if sender in part)
        self._sums[place].add(parsed)

    def close(self, contributors: Collection[int]) -> None:
        """Join the sums so that each has enough contributors, who are the parts from now on."""
        there = set(contributors)
        counts = [len(there & set(part)) for part in self.parts]
        sums = []
        for group in partition.merge(counts, self._smallest):
            first, *others = (self._sums[place] for place in group)
            for other in others:
                first.merge(other)
            sums.append(first)
        self.parts = list(partition.split(self.parts, there, self._smallest))
        self._sums = sums

    def c1(self, place: int) -> bytes:
        """Return Σ c1_i of a part, as on the wire."""
        return self._sums[place].c1()

    def recover(self, place: int, shares: list[list[Element]]) -> Integers | None:
        """Return the summed values of a part, or None when they are out of range."""
        return self._sums[place].recover(shares, len(self.parts[place]))
