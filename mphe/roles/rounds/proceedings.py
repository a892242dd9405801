"""What the server remembers of the round under way, and what it keeps of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from mphe.arithmetic.ring import Element, Ring
from mphe.plan.plan import Plan
from mphe.roles import kept
from mphe.roles.attendance import AttendanceRecord
from mphe.roles.rounds.collecting import Collecting
from mphe.roles.rounds.exclusion import Excluded
from mphe.roles.verified.evidence_store import EvidenceRecord
from mphe.scheme.running_sum import SumRecord


@dataclass(frozen=True)
class ProceedingsRecord:
    """`Proceedings` between two messages, without c1, which follows from the sum."""

    number: int
    contributors: tuple[int, ...]
    attempt: int
    active: tuple[int, ...]
    shares: tuple[kept.ShareRecord, ...]
    implausible: int
    silent: tuple[int, ...]
    fallen: tuple[int, ...]
    welcomed: tuple[int, ...]


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
        sum: of what was contributed so far, one or none.
        excluded: who takes no further part.
    """

    state: str
    members: tuple[int, ...]
    able: tuple[int, ...]
    unpledged: tuple[int, ...]
    failures: tuple[kept.Count, ...]
    round: ProceedingsRecord
    attendance: AttendanceRecord
    evidence: tuple[EvidenceRecord, ...]
    sum: tuple[SumRecord, ...]
    excluded: tuple[Excluded, ...]


@dataclass
class Proceedings(Collecting):
    """What is remembered of one round, and forgotten with it.

    Attributes:
        c1: Σ_U c1_i as on the wire, once U is fixed; empty for verified aggregates.
        attempt: of the decryption.
        active: D.
        shares: of the members of D that answered, block after block.
        implausible: decryptions that gave no sum of honest updates.
        silent: decryptors that refused or did not answer.
        fallen: clients that were lost during the decryption.
        welcomed: clients that were sent the welcome.
    """

    c1: bytes = b""
    attempt: int = 0
    active: tuple[int, ...] = ()
    shares: dict[int, list[Element]] = field(default_factory=dict)
    implausible: int = 0
    silent: set[int] = field(default_factory=set)
    fallen: set[int] = field(default_factory=set)
    welcomed: set[int] = field(default_factory=set)

    def record(self, ring: Ring) -> ProceedingsRecord:
        """Return what is to be kept; `ring` is that of the shares."""
        return ProceedingsRecord(
            self.number,
            tuple(self.contributors),
            self.attempt,
            self.active,
            kept.write_shares(ring, self.shares),
            self.implausible,
            kept.write_indices(self.silent),
            kept.write_indices(self.fallen),
            kept.write_indices(self.welcomed),
        )

    def resume(self, record: ProceedingsRecord, ring: Ring, plan: Plan) -> None:
        """Take over what was kept; EncodingError when it makes no sense."""
        clients = plan.session.num_clients
        for indices in (sorted(record.contributors), record.active):
            kept.read_indices(indices, clients)
        self.number, self.attempt = record.number, record.attempt
        self.contributors, self.active = list(record.contributors), record.active
        self.shares = kept.read_shares(ring, plan.threshold, record.shares, record.active)
        self.implausible = record.implausible
        self.silent = kept.read_indices(record.silent, clients)
        self.fallen = kept.read_indices(record.fallen)
        self.welcomed = kept.read_indices(record.welcomed, clients)

    def unanswered(self) -> tuple[int, ...]:
        """Return the members of D whose shares are missing."""
        return tuple(index for index in self.active if index not in self.shares)
