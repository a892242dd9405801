"""What the server remembers of the round under way, and what it keeps of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mphe.arithmetic.ring import Element, Ring
from mphe.errors import EncodingError
from mphe.plan.plan import Plan
from mphe.roles import kept
from mphe.roles.attendance import AttendanceRecord
from mphe.roles.rounds.blame import BlameRecord
from mphe.roles.rounds.collecting import Collecting
from mphe.roles.rounds.grouping import SumsRecord
from mphe.roles.verified.evidence_store import EvidenceRecord
from mphe.wire.messages import UNDIVIDED, Draw, Group


@dataclass(frozen=True)
class WantedRecord:
    """`Wanted` between two messages, without what follows from the sums; no total yet: empty."""

    total: bytes
    wrong: tuple[tuple[int, ...], ...]
    reason: str


@dataclass(frozen=True)
class ProceedingsRecord:
    """`Proceedings` between two messages, without what follows from the sums."""

    number: int
    contributors: tuple[int, ...]
    draw: Draw
    sitting: tuple[int, ...]
    attempt: int
    active: tuple[int, ...]
    asked: tuple[int, ...]
    shares: tuple[kept.ShareRecord, ...]
    wanted: tuple[WantedRecord, ...]
    silent: tuple[int, ...]
    refused: tuple[int, ...]
    overtaken: tuple[kept.Count, ...]
    fallen: tuple[int, ...]
    welcomed: tuple[int, ...]
    returned: tuple[int, ...]


@dataclass(frozen=True)
class AggregatorRecord:
    """`Aggregator` between two messages, beside its session.

    Attributes:
        state: value of `AggregatorState`.
        members: clients that may contribute.
        able: clients that can decrypt.
        unpledged: clients whose pledges the next round waits for.
        failures: of decryptors, over all rounds.
        round: the one under way, or the last.
        attendance: who is there and who is awaited.
        evidence: where aggregates are verified, one or none.
        sums: of what was contributed so far, run by run or group by group.
        blame: what was wrong so far, and who was found out.
        lost: contributors of sums that were given up since the model changed.
        withheld: rounds in a row that were not decrypted because of them.
    """

    state: str
    members: tuple[int, ...]
    able: tuple[int, ...]
    unpledged: tuple[int, ...]
    failures: tuple[kept.Count, ...]
    round: ProceedingsRecord
    attendance: AttendanceRecord
    evidence: tuple[EvidenceRecord, ...]
    sums: SumsRecord
    blame: BlameRecord
    lost: tuple[tuple[int, ...], ...]
    withheld: int


@dataclass
class Wanted:
    """The sum of one group, which is wanted until it is plausible.

    Attributes:
        contributors: of the group.
        c1: Σ c1_i as on the wire; empty for verified aggregates.
        total: int64 (length,), once it is plausible.
        wrong: active sets under which it was not.
        reason: what was wrong with it, one line.
    """

    contributors: tuple[int, ...]
    c1: bytes
    total: NDArray[np.int64] | None = None
    wrong: list[tuple[int, ...]] = field(default_factory=list)
    reason: str = ""

    def record(self) -> WantedRecord:
        """Return what is to be kept."""
        total = b"" if self.total is None else self.total.astype("<i8", copy=False).tobytes()
        return WantedRecord(total, tuple(self.wrong), self.reason)

    def resume(self, record: WantedRecord, plan: Plan) -> None:
        """Take over what was kept; EncodingError when it makes no sense."""
        for active in record.wrong:
            kept.read_indices(active, plan.session.num_clients)
        if record.total:
            if len(record.total) != 8 * plan.session.length:
                raise EncodingError("the sum of a group has the wrong length")
            self.total = np.frombuffer(record.total, "<i8").astype(np.int64)
        self.wrong, self.reason = list(record.wrong), record.reason


@dataclass
class Proceedings(Collecting):
    """What is remembered of one round, and forgotten with it.

    Attributes:
        draw: how contributors are split, with its salt.
        sitting: clients that do not contribute, because they are suspected.
        attempt: of the decryption.
        active: D.
        asked: places of the groups that D was asked for.
        shares: of the members of D that answered, group after group, block after block.
        wanted: the groups, once U is fixed.
        silent: decryptors that refused or did not answer.
        refused: those of them that refused, and are not waited for.
        overtaken: the attempts that some of these answered before, by a server that lost track.
        fallen: clients that were lost during the decryption.
        welcomed: clients that were sent the welcome.
        returned: clients that came back, and were not lost since.
    """

    draw: Draw = UNDIVIDED
    sitting: set[int] = field(default_factory=set)
    attempt: int = 0
    active: tuple[int, ...] = ()
    asked: tuple[int, ...] = ()
    shares: dict[int, list[Element]] = field(default_factory=dict)
    wanted: list[Wanted] = field(default_factory=list)
    silent: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    overtaken: Counter[int] = field(default_factory=Counter)
    fallen: set[int] = field(default_factory=set)
    welcomed: set[int] = field(default_factory=set)
    returned: set[int] = field(default_factory=set)

    def record(self, ring: Ring) -> ProceedingsRecord:
        """Return what is to be kept; `ring` is that of the shares."""
        return ProceedingsRecord(
            self.number,
            tuple(self.contributors),
            self.draw,
            kept.write_indices(self.sitting),
            self.attempt,
            self.active,
            self.asked,
            kept.write_shares(ring, self.shares),
            tuple(wanted.record() for wanted in self.wanted),
            kept.write_indices(self.silent),
            kept.write_indices(self.refused),
            kept.write_counts(self.overtaken),
            kept.write_indices(self.fallen),
            kept.write_indices(self.welcomed),
            kept.write_indices(self.returned),
        )

    def resume(self, record: ProceedingsRecord, ring: Ring, plan: Plan) -> None:
        """Take over what was kept, but for what is wanted; EncodingError when it makes no sense."""
        clients = plan.session.num_clients
        for indices in (sorted(record.contributors), record.active):
            kept.read_indices(indices, clients)
        self.number, self.attempt = record.number, record.attempt
        self.contributors, self.active = list(record.contributors), record.active
        self.draw, self.asked = record.draw, record.asked
        self.shares = kept.read_shares(
            ring, plan.threshold, record.shares, record.active, len(record.asked)
        )
        self.sitting = kept.read_indices(record.sitting, clients)
        self.silent = kept.read_indices(record.silent, clients)
        self.refused = kept.read_indices(record.refused, clients)
        self.overtaken = kept.read_counts(record.overtaken)
        self.fallen = kept.read_indices(record.fallen)
        self.welcomed = kept.read_indices(record.welcomed, clients)
        self.returned = kept.read_indices(record.returned, clients)

    def want(self, groups: Iterable[Group]) -> None:
        """Fix the groups whose sums are wanted."""
        self.wanted = [Wanted(group.contributors, group.c1) for group in groups]

    def resume_wanted(self, records: Sequence[WantedRecord], plan: Plan) -> None:
        """Take over what was kept of the groups; EncodingError when it makes no sense."""
        unknown = len(records) != len(self.wanted) or set(self.asked) - set(range(len(records)))
        if unknown:
            raise EncodingError("what is wanted are not the groups")
        for wanted, record in zip(self.wanted, records, strict=True):
            wanted.resume(record, plan)

    def missing(self) -> list[Wanted]:
        """Return the groups whose sums are not known yet."""
        return [wanted for wanted in self.wanted if wanted.total is None]

    def awake(self, client: int) -> None:
        """Ask a decryptor again that had not answered, or had refused."""
        self.silent.discard(client)
        self.refused.discard(client)
        self.overtaken.pop(client, None)

    def overtake(self, limit: int) -> bool:
        """Jump beyond the attempts that were used behind our back; return whether there were any.

        Whoever was asked under one of them may answer a newer one.
        """
        used = max(self.overtaken.values(), default=0)
        self.attempt = min(max(self.attempt, used), limit)
        for client in list(self.overtaken):
            self.awake(client)
        return used > 0

    def unanswered(self) -> tuple[int, ...]:
        """Return the members of D whose shares are missing."""
        return tuple(index for index in self.active if index not in self.shares)
