"""What the server keeps to convince decryptors that do not trust it; nothing here is secret."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from mphe.errors import EncodingError, MalformedMessage
from mphe.roles import kept
from mphe.roles.setup.common import PublicSession
from mphe.roles.verified.evidence import (
    DIGEST_BYTES,
    Statement,
    Verifier,
    check_pledges,
    model_digest,
)
from mphe.wire.messages import UNDIVIDED, Contribution, Draw, Evidence, NextPledge, Pledge


@dataclass(frozen=True)
class EvidenceRecord:
    """`EvidenceStore` between two messages.

    Attributes:
        next: pledges for the next round.
        statement: of the round under way.
        evidence: for it.
    """

    next: tuple[Pledge, ...]
    statement: Statement
    evidence: tuple[Evidence, ...]


class EvidenceStore:
    """Pledges for the next round, and the evidence of this one."""

    def __init__(self, session: PublicSession) -> None:
        self._name = session.transcript
        self._clients = session.plan.session.num_clients
        self._verifier = Verifier(session.plan, session.key, session.identities)
        self._next: dict[int, bytes] = {}
        self._evidence: dict[int, Evidence] = {}
        self.statement = Statement(self._name, 0, b"", ())

    def record(self) -> EvidenceRecord:
        """Return what is to be kept."""
        pledges = tuple(Pledge(index, self._next[index]) for index in sorted(self._next))
        return EvidenceRecord(pledges, self.statement, self.evidence())

    def resume(self, record: EvidenceRecord) -> None:
        """Take over what was kept; EncodingError when it makes no sense."""
        statement = record.statement
        if statement.session != self._name:
            raise EncodingError("the evidence is of another session")
        for pledges in (record.next, statement.pledges):
            check_pledges(pledges, self._clients)
        kept.read_indices([item.index for item in record.evidence], self._clients)
        self._next = {pledge.index: pledge.digest for pledge in record.next}
        self._evidence = {item.index: item for item in record.evidence}
        self.statement = statement

    def clear(self) -> None:
        """Forget the evidence, which is of a round that is over."""
        self._evidence = {}

    def pledge(self, sender: int, message: NextPledge) -> None:
        """Note what a client contributes next.

        Raises:
            MalformedMessage: it is no digest, or speaks for another client.
        """
        pledge = message.pledge
        if pledge.index != sender or len(pledge.digest) != DIGEST_BYTES:
            raise MalformedMessage(sender, "its pledge is malformed")
        self._next[sender] = pledge.digest

    def pledged(self) -> set[int]:
        """Return who can contribute to the next round."""
        return set(self._next)

    def begin(
        self, round: int, model: bytes, present: Collection[int], draw: Draw = UNDIVIDED
    ) -> tuple[Pledge, ...]:
        """Fix the list of a round; a pledge serves once."""
        listed = sorted(self.pledged() & set(present))
        pledges = tuple(Pledge(index, self._next.pop(index)) for index in listed)
        self.statement = Statement(self._name, round, model_digest(model), pledges, draw)
        self._evidence = {}
        return pledges

    def accept(self, sender: int, message: Contribution) -> None:
        """Check and keep the evidence of a contribution.

        Raises:
            EncodingError: a decryptor would refuse it.
        """
        evidence = Evidence(sender, message.c1, message.proof, message.signature)
        self._verifier.check(self.statement, evidence)
        self._evidence[sender] = evidence

    def evidence(self) -> tuple[Evidence, ...]:
        """Return what was accepted in this round, by index."""
        return tuple(self._evidence[index] for index in sorted(self._evidence))
