"""Who is there in a round, who is awaited, and who is expected to miss it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mphe.roles import kept

MAX_DOUBLINGS = 10


@dataclass(frozen=True)
class AttendanceRecord:
    """`Attendance` between two messages."""

    present: tuple[int, ...]
    expected: tuple[int, ...]
    round: int
    misses: tuple[kept.Count, ...]
    awaited_from: tuple[kept.Count, ...]


class Attendance:
    """Keeps one straggler from making every round wait for its whole deadline.

    After its m-th miss in a row a client is not awaited for 2^(m-1) rounds, then once more: a
    hung one costs few deadlines, and one that has recovered is waited for again. What it sends in
    time counts in any case.

    Attributes:
        present: clients that were sent the model and are not lost.
        expected: those among them whose contribution the round waits for.
    """

    def __init__(self) -> None:
        self.present: set[int] = set()
        self.expected: set[int] = set()
        self._round = 0
        self._misses: Counter[int] = Counter()
        self._awaited_from: Counter[int] = Counter()

    def record(self) -> AttendanceRecord:
        """Return what is to be kept."""
        return AttendanceRecord(
            kept.write_indices(self.present),
            kept.write_indices(self.expected),
            self._round,
            kept.write_counts(self._misses),
            kept.write_counts(self._awaited_from),
        )

    def resume(self, record: AttendanceRecord) -> None:
        """Take over what was kept; EncodingError when it makes no sense."""
        self.present = kept.read_indices(record.present)
        self.expected = kept.read_indices(record.expected)
        self._round = record.round
        self._misses = kept.read_counts(record.misses)
        self._awaited_from = kept.read_counts(record.awaited_from)

    def begin(self, present: Iterable[int], needed: int) -> None:
        """Start a round; without tardy clients there must be enough left to wait for."""
        self._round += 1
        self.present = set(present)
        punctual = {peer for peer in self.present if self._awaited_from[peer] <= self._round}
        self.expected = punctual if len(punctual) >= needed else set(self.present)

    def expect_none_of(self, peers: Iterable[int]) -> None:
        """Do not wait for clients that cannot contribute to this round."""
        self.expected.difference_update(peers)

    def arrived(self, peer: int) -> None:
        """Note a contribution in time, awaited or not."""
        self.expected.discard(peer)
        self._misses[peer] = self._awaited_from[peer] = 0

    def just_missed(self, peer: int) -> None:
        """Note a contribution right after the close: the next round waits for it, but only once."""
        if self._misses[peer] <= 1:
            self._awaited_from[peer] = 0

    def lost(self, peers: Iterable[int]) -> None:
        """Note clients that vanished or misbehaved."""
        self.present.difference_update(peers)
        self.expected.difference_update(peers)

    def deadline(self) -> None:
        """Wait no longer for those who are missing."""
        for peer in self.expected:
            self._misses[peer] += 1
            pause = 1 << min(self._misses[peer] - 1, MAX_DOUBLINGS)
            self._awaited_from[peer] = self._round + 1 + pause
        self.expected = set()
