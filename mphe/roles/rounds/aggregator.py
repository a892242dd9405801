"""The server's part in the rounds: add ciphertexts, have the sum decrypted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mphe.arithmetic.ring import Element, Ring
from mphe.errors import (
    DuplicateMessage,
    EncodingError,
    LocalProtocolError,
    MalformedMessage,
    RemoteProtocolError,
    UnexpectedSender,
)
from mphe.plan.plan import Plan
from mphe.roles import kept
from mphe.roles.attendance import Attendance, AttendanceRecord
from mphe.roles.machine import Accepts, Event, Machine, Moves, Output, Send
from mphe.roles.rounds.collecting import Collecting, Outdated
from mphe.roles.setup import returning
from mphe.roles.setup.common import PublicSession, check_epoch, check_transcript
from mphe.roles.verified.evidence_store import EvidenceRecord, EvidenceStore
from mphe.scheme import decryption
from mphe.scheme.packing import BlockMap
from mphe.scheme.running_sum import RunningSum, SumRecord
from mphe.wire.messages import (
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Group,
    Join,
    Message,
    NextPledge,
    Pledge,
    Ready,
    Refusal,
    RoundEnd,
    RoundStart,
    SessionOpen,
)


class AggregatorState(Enum):
    """What the server does."""

    IDLE = "idle"
    COLLECTING = "collecting"
    DECRYPTING = "decrypting"


IDLE, COLLECTING, DECRYPTING = AggregatorState


@dataclass(frozen=True)
class Admitted(Event):
    """A client contributes from the next round on; it cannot decrypt."""

    sender: int


@dataclass(frozen=True)
class Closed(Event):
    """The round takes no more contributions; decryption begins."""

    round: int
    contributors: tuple[int, ...]


@dataclass(frozen=True)
class Summed(Event):
    """The sum of exactly these contributions.

    Attributes:
        round: its number.
        contributors: whose updates are in it, sorted.
        total: int64 (length,), or float64 without encryption.
        attempts: decryption attempts, 0 without encryption.
        groups: sums of groups of contributors; none unless contributors are split.
    """

    round: int
    contributors: tuple[int, ...]
    total: NDArray[np.int64] | NDArray[np.float64]
    attempts: int
    groups: tuple[NDArray[np.int64], ...] = ()


@dataclass(frozen=True)
class Abandoned(Event):
    """The round ended without a sum; the model is unchanged.

    Attributes:
        round: its number.
        reason: one line.
        begun: whether decryption had begun, so that somebody may know the sum.
        contributors: whose updates were in it.
        missing: whose absence caused it.
        attempts: decryption attempts.
    """

    round: int
    reason: str
    begun: bool
    contributors: tuple[int, ...]
    missing: tuple[int, ...]
    attempts: int


@dataclass(frozen=True)
class ProceedingsRecord:
    """`_Round` between two messages, without c1, which follows from the sum."""

    number: int
    contributors: tuple[int, ...]
    attempt: int
    active: tuple[int, ...]
    shares: tuple[kept.ShareRecord, ...]
    implausible: int
    silent: tuple[int, ...]
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
        sum: of what was contributed so far, one or none.
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


@dataclass
class _Round(Collecting):
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
        returned: clients that came back, and were not lost since.
    """

    c1: bytes = b""
    attempt: int = 0
    active: tuple[int, ...] = ()
    shares: dict[int, list[Element]] = field(default_factory=dict)
    implausible: int = 0
    silent: set[int] = field(default_factory=set)
    fallen: set[int] = field(default_factory=set)
    welcomed: set[int] = field(default_factory=set)
    returned: set[int] = field(default_factory=set)

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
            kept.write_indices(self.returned),
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
        self.returned = kept.read_indices(record.returned, clients)

    def unanswered(self) -> tuple[int, ...]:
        """Return the members of D whose shares are missing."""
        return tuple(index for index in self.active if index not in self.shares)


class Aggregator(Machine[AggregatorState]):
    """Runs one round after the other with whoever is there."""

    ACCEPTS: ClassVar[Accepts] = {
        IDLE: {Join, Ready, NextPledge, Contribution, DecryptionShare, Refusal},
        COLLECTING: {Join, Ready, NextPledge, Contribution, DecryptionShare, Refusal},
        DECRYPTING: {Join, Ready, NextPledge, Contribution, DecryptionShare, Refusal},
    }
    MOVES: ClassVar[Moves] = {
        IDLE: {"start": COLLECTING},
        COLLECTING: {"close": DECRYPTING, "end": IDLE},
        DECRYPTING: {"end": IDLE},
    }

    def __init__(self, session: PublicSession, blocks: BlockMap = map) -> None:
        """Take over a session whose key is confirmed; `blocks` computes those of a sum."""
        super().__init__(IDLE)
        self.session = session
        self.plan = session.plan
        self.members = {*session.qualified, *session.admitted}
        self._able = set(session.decryptors) - set(session.admitted)
        self._sum = RunningSum(session.plan, session.crs_seed, blocks)
        self._evidence = EvidenceStore(session) if session.plan.session.verified else None
        # The first round starts when those who made the key have pledged.
        self._unpledged = set(session.qualified) if self._evidence else set()
        self._attendance = Attendance()
        self._failures: Counter[int] = Counter()
        self._now = _Round(0)
        self._handlers = {
            Join: self._on_join,
            Ready: self._on_return,
            NextPledge: self._on_pledge,
            Contribution: self._on_contribution,
            DecryptionShare: self._on_share,
            Refusal: self._on_refusal,
        }

    # -- what is kept --------------------------------------------------------------------------

    def record(self) -> AggregatorRecord:
        """Return what is to be kept, beside the session."""
        return AggregatorRecord(
            state=self.state.value,
            members=kept.write_indices(self.members),
            able=kept.write_indices(self._able),
            unpledged=kept.write_indices(self._unpledged),
            failures=kept.write_counts(self._failures),
            round=self._now.record(self._sum.ring),
            attendance=self._attendance.record(),
            evidence=() if self._evidence is None else (self._evidence.record(),),
            sum=self._sum.record(),
        )

    def resume(self, record: AggregatorRecord) -> None:
        """Take over what was kept; EncodingError when it makes no sense."""
        clients = self.plan.session.num_clients
        self.state = kept.read_state(AggregatorState, record.state)
        self.members = kept.read_indices(record.members, clients)
        self._able = kept.read_indices(record.able, clients)
        self._unpledged = kept.read_indices(record.unpledged, clients)
        self._failures = kept.read_counts(record.failures)
        self._now.resume(record.round, self._sum.ring, self.plan)
        self._attendance.resume(record.attendance)
        self._sum.resume(record.sum)
        self._resume_evidence(record.evidence)
        self._check_resumed()
        if self.state is DECRYPTING:
            self._now.c1 = self._c1()

    def _resume_evidence(self, records: tuple[EvidenceRecord, ...]) -> None:
        if len(records) != (self._evidence is not None):
            raise EncodingError("there is evidence, or none, where it does not belong")
        if self._evidence is not None:
            self._evidence.resume(records[0])

    def _check_resumed(self) -> None:
        """Raise EncodingError when the parts do not fit, so that a round could not go on."""
        summing = self.state is not IDLE and bool(self._now.contributors)
        asked = self.state is not DECRYPTING or (
            summing and len(self._now.active) == self.plan.session.threshold
        )
        if self._sum.is_empty == summing or not asked:
            raise EncodingError("the round under way does not fit its sum")

    # -- from outside --------------------------------------------------------------------------

    @property
    def round(self) -> int:
        """Number of the round that is under way, or was last."""
        return self._now.number

    def resume_at(self, last: int) -> None:
        """Count on from a round that is over: the next one has the number after it.

        Raises:
            LocalProtocolError: a round is under way, or this one is older than the last.
        """
        if self.state is not IDLE or last < self.round:
            raise LocalProtocolError(f"round {self.round} cannot be followed by round {last + 1}")
        self._now = _Round(last)

    def start_round(self, model: bytes, present: Iterable[int]) -> list[Output]:
        """Send the model to the clients that are present and expect their updates.

        Raises:
            LocalProtocolError: a round is under way, or the session has no more rounds.
        """
        if self.round >= self.plan.session.rounds:
            raise LocalProtocolError(f"the session has only {self.round} rounds")
        self._move("start")
        self._now = _Round(self.round + 1)
        self._attendance.begin(present, self.plan.session.min_contributors)
        self._sum.clear()
        pledges = self._list_pledges(model)
        message = RoundStart(self.round, model, pledges, self.session.transcript)
        outputs: list[Output] = [Send(index, message) for index in self._there()]
        return outputs if self._attendance.expected else outputs + self._close()

    def _list_pledges(self, model: bytes) -> tuple[Pledge, ...]:
        """Return who contributes which c1, where aggregates are verified; expect nobody else."""
        if self._evidence is None:
            return ()
        self._unpledged = set()
        pledges = self._evidence.begin(self.round, model, self._attendance.present)
        named = {pledge.index for pledge in pledges}
        self._attendance.expect_none_of(self._attendance.present - named)
        return pledges

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take one message of a client on the roster."""
        if not 1 <= sender <= self.plan.session.num_clients:
            raise UnexpectedSender(sender, "it is on no roster")
        return super().receive(sender, message)

    def lost(self, *peers: int) -> list[Output]:
        """Go on without clients that vanished or misbehaved in this round, all at once."""
        self._attendance.lost(peers)
        self._now.returned.difference_update(peers)
        self._unpledged.difference_update(peers)
        if self.state is COLLECTING and not self._attendance.expected:
            return self._close()
        if self.state is DECRYPTING:
            self._now.fallen.update(peers)
            if set(peers) & set(self.waiting_for()):
                self._failures.update(peers)
                return self._next_attempt()
        return []

    def deadline_passed(self) -> list[Output]:
        """Close the round, or ask other decryptors instead of the silent ones."""
        if self.state is COLLECTING:
            self._attendance.deadline()
            return self._close()
        if self.state is DECRYPTING:
            self._now.silent.update(self.waiting_for())
            self._failures.update(self.waiting_for())
            return self._next_attempt()
        self._unpledged = set()
        return []

    def abandon(self, reason: str) -> list[Output]:
        """Give up the round under way, if there is one."""
        return [] if self.state is IDLE else self._abandon(reason)

    def waiting_for(self) -> tuple[int, ...]:
        """Return whose answer is still missing."""
        if self.state is COLLECTING:
            return tuple(sorted(self._attendance.expected))
        if self.state is DECRYPTING:
            return self._now.unanswered()
        return tuple(sorted(self._unpledged))

    @property
    def step(self) -> tuple[object, ...]:
        """What changes whenever a new wait begins."""
        return self.state, self.round, self._now.attempt

    def _on_join(self, sender: int, message: Join) -> list[Output]:
        """Welcome a client that joins after the set-up, or again without its share of the key."""
        if message.index != sender:
            raise UnexpectedSender(sender, f"it speaks for client {message.index}")
        check_epoch(message.epoch, sender)
        # The welcome is much longer than the join that asks for it.
        if sender in self._now.welcomed:
            raise DuplicateMessage(sender, "it joined in this round before")
        self._now.welcomed.add(sender)
        self.members.add(sender)
        self._able.discard(sender)
        # It has lost what it knew of the round under way.
        rest = self.lost(sender)
        return [Admitted(sender), Send(sender, self.session.welcome), *rest]

    def _on_return(self, sender: int, message: Ready) -> list[Output]:
        """Take back a client that still holds its keys."""
        # Each costs a check and a long answer, and a client comes back once a connection.
        if sender in self._now.returned:
            raise DuplicateMessage(sender, "it came back before, over this connection")
        returning.check(self.session, sender, message)
        self._now.returned.add(sender)
        self.members.add(sender)
        if message.unopened:
            self._able.discard(sender)
        elif sender in self.session.decryptors:
            self._able.add(sender)
        if self._evidence is not None:
            self._unpledged.add(sender)  # It pledges next: a server that died may have lost that.
        opened = SessionOpen(self.session.decryptors, self.session.welcome.vouches)
        return [Send(sender, opened)]

    def _on_pledge(self, sender: int, message: NextPledge) -> list[Output]:
        if self._evidence is None:
            raise RemoteProtocolError(sender, "it pledges, but aggregates are not verified")
        check_transcript(message.transcript, self.session.transcript, sender)
        self._evidence.pledge(sender, message)
        self._unpledged.discard(sender)
        return []

    # -- contributions -------------------------------------------------------------------------

    def _on_contribution(self, sender: int, message: Contribution) -> list[Output]:
        check_transcript(message.transcript, self.session.transcript, sender)
        if message.segment:
            raise MalformedMessage(sender, "its contribution is cut into segments")
        add = self._add if self.state is COLLECTING else None
        taken = self._now.take(sender, message, self._attendance, add)
        goes_on = isinstance(taken, Outdated) or self._attendance.expected
        return [taken] if goes_on else [taken, *self._close()]

    def _add(self, sender: int, message: Contribution) -> None:
        try:
            parsed = self._sum.parse(message)
            if self._evidence is not None:
                self._evidence.accept(sender, message)
        except EncodingError as error:
            raise MalformedMessage(sender, f"its contribution is malformed: {error}") from error
        self._sum.add(parsed)

    def _close(self) -> list[Output]:
        """Fix U and ask the first active set."""
        contributors, minimum = self._now.announced(), self.plan.session.min_contributors
        if len(contributors) < minimum:
            return self._abandon(
                f"{len(contributors)} updates arrived, at least {minimum} must be in a sum"
            )
        self._move("close")
        self._now.c1 = self._c1()
        return [Closed(self.round, contributors), *self._next_attempt()]

    def _c1(self) -> bytes:
        """Return what decryptors are sent of the sum: nothing where they add up the evidence."""
        return b"" if self._evidence else self._sum.c1()

    def _there(self) -> list[int]:
        return sorted(self._attendance.present)

    # -- decryption ----------------------------------------------------------------------------

    def _next_attempt(self) -> list[Output]:
        """Ask t live decryptors, the punctual contributors first."""
        now, session = self._now, self.plan.session
        able = [i for i in self._ranked() if i in self._attendance.present - now.silent]
        if len(able) < session.threshold:
            return self._abandon(f"{len(able)} decryptors answer, {session.threshold} are needed")
        if now.attempt >= session.max_attempts:
            return self._abandon(f"no decryption in {now.attempt} attempts")
        now.attempt += 1
        now.active, now.shares = tuple(sorted(able[: session.threshold])), {}
        request = self._request()
        return [Send(index, request) for index in now.active]

    def _request(self) -> DecryptionRequest:
        """Return what D is asked for; with its evidence where aggregates are verified."""
        now = self._now
        groups = (Group(now.announced(), now.c1),)
        request = DecryptionRequest(
            now.number, now.attempt, now.active, groups, transcript=self.session.transcript
        )
        if self._evidence is None:
            return request
        statement, evidence = self._evidence.statement, self._evidence.evidence()
        return replace(request, model=statement.model, pledges=statement.pledges, evidence=evidence)

    def _ranked(self) -> list[int]:
        """Return the decryptors: those that failed least first, then the early contributors.

        Failures are remembered from round to round, so that a bad one costs one round, not all.
        """
        early = {index: place for place, index in enumerate(self._now.contributors)}
        return sorted(
            self._able,
            key=lambda index: (self._failures[index], early.get(index, len(early)), index),
        )

    def _is_current(self, message: DecryptionShare | Refusal) -> bool:
        """Return whether the attempt that a message answers is under way."""
        now = self._now
        answered = (message.round, message.attempt) == (now.number, now.attempt)
        return answered and self.state is DECRYPTING

    def _on_share(self, sender: int, message: DecryptionShare) -> list[Output]:
        check_transcript(message.transcript, self.session.transcript, sender)
        now, plan = self._now, self.plan
        if not self._is_current(message):
            return [Outdated(sender)]
        if sender not in now.active:
            raise UnexpectedSender(sender, "it was not asked for a decryption share")
        if sender in now.shares:
            raise DuplicateMessage(sender, "it sent this decryption share before")
        try:
            share = decryption.read_blocks(
                self._sum.ring, plan.threshold, message.share, plan.dropped_share
            )
        except EncodingError as error:
            raise MalformedMessage(sender, f"its share is malformed: {error}") from error
        now.shares[sender] = share
        return [] if now.unanswered() else self._recover()

    def _recover(self) -> list[Output]:
        now, contributors = self._now, self._now.announced()
        total = self._sum.recover(list(now.shares.values()), len(contributors))
        if total is None:
            now.implausible += 1
            self._failures.update(now.active)
            if now.implausible > 1:
                return self._abandon("the sum is out of range: an update or a share is forged")
            return self._next_attempt()
        return [Summed(now.number, contributors, total, now.attempt), *self._end(contributors)]

    def _on_refusal(self, sender: int, message: Refusal) -> list[Output]:
        check_transcript(message.transcript, self.session.transcript, sender)
        if not self._is_current(message) or sender not in self._now.active:
            return [Outdated(sender)]
        self._now.silent.add(sender)
        self._failures[sender] += 1
        return self._next_attempt()

    def _abandon(self, reason: str) -> list[Output]:
        """End the round without a sum."""
        now = self._now
        expected = set(range(1, self.plan.session.num_clients + 1))
        missing = (expected - set(now.contributors)) | now.silent | now.fallen
        abandoned = Abandoned(
            round=now.number,
            reason=reason,
            begun=now.attempt > 0,
            contributors=now.announced(),
            missing=tuple(sorted(missing)),
            attempts=now.attempt,
        )
        return [abandoned, *self._end(())]

    def _end(self, counted: tuple[int, ...]) -> list[Output]:
        """Forget the sum and what led to it, and tell everybody whose updates were counted."""
        self._move("end")
        self._sum.clear()
        self._now.c1, self._now.shares = b"", {}
        if self._evidence is not None:
            self._evidence.clear()
        end = RoundEnd(self.round, counted, self.session.transcript)
        return [Send(index, end) for index in self._there()]
