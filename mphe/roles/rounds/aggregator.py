"""The server's part in the rounds: add ciphertexts, have the sum decrypted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import replace
from enum import Enum
from typing import ClassVar

import numpy as np

from mphe.arithmetic.ring import Integers
from mphe.arithmetic.sampling import RandomSource
from mphe.errors import (
    DuplicateMessage,
    EncodingError,
    LocalProtocolError,
    MalformedMessage,
    RemoteProtocolError,
    UnexpectedSender,
)
from mphe.roles import kept
from mphe.roles.attendance import Attendance
from mphe.roles.machine import Accepts, Machine, Moves, Output, Send
from mphe.roles.rounds import overlap
from mphe.roles.rounds.blame import Blame, beyond_decryptors
from mphe.roles.rounds.collecting import Outdated
from mphe.roles.rounds.grouping import GroupSums
from mphe.roles.rounds.judging import Judge, satisfied
from mphe.roles.rounds.outcomes import (
    Abandoned,
    Admitted,
    Closed,
    Excluded,
    GroupSum,
    Kept,
    Overlap,
    Retried,
    Summed,
)
from mphe.roles.rounds.proceedings import AggregatorRecord, Proceedings, Wanted
from mphe.roles.setup import returning
from mphe.roles.setup.common import PublicSession, check_epoch, check_transcript
from mphe.roles.verified.evidence_store import EvidenceRecord, EvidenceStore
from mphe.roles.verified.proving import ProofChecker, Unproven
from mphe.scheme import decryption, partition
from mphe.scheme.packing import BlockMap
from mphe.wire.messages import (
    Contribution,
    DecryptionRequest,
    DecryptionShare,
    Draw,
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
    KEEPING = "keeping"


IDLE, COLLECTING, DECRYPTING, KEEPING = AggregatorState
FORGED = "the sum is out of range: an update or a share is forged"
MAX_WITHHELD = 3
"""Rounds that are not decrypted for the sake of a lost sum; the next one goes on and says so."""


class Aggregator(Machine[AggregatorState]):
    """Runs one round after the other with whoever is there."""

    ACCEPTS: ClassVar[Accepts] = {
        IDLE: {Join, Ready, NextPledge, Contribution, DecryptionShare, Refusal},
        COLLECTING: {Join, Ready, NextPledge, Contribution, DecryptionShare, Refusal},
        DECRYPTING: {Join, Ready, NextPledge, Contribution, DecryptionShare, Refusal},
        KEEPING: {Join, Ready, NextPledge, Contribution, DecryptionShare, Refusal},
    }
    MOVES: ClassVar[Moves] = {
        IDLE: {"start": COLLECTING},
        COLLECTING: {"close": DECRYPTING, "end": IDLE},
        DECRYPTING: {"keep": KEEPING, "end": IDLE},
        KEEPING: {"ask": DECRYPTING, "end": IDLE},
    }

    def __init__(
        self,
        session: PublicSession,
        blocks: BlockMap = map,
        source: RandomSource | None = None,
        judge: Judge = satisfied,
    ) -> None:
        """Take over a session whose key is confirmed.

        Args:
            session: what the set-up made.
            blocks: computes the blocks of a sum.
            source: of the salts of groups; by default the operating system.
            judge: says what is implausible in a sum that is in range.
        """
        super().__init__(IDLE)
        self.session = session
        self.plan = session.plan
        self.members = {*session.qualified, *session.admitted}
        self._able = set(session.decryptors) - set(session.admitted)
        self._sums = GroupSums(session.plan, session.crs_seed, blocks)
        self._blame = Blame(session.plan.session, source or RandomSource.from_system())
        self._judge = judge
        self._evidence = EvidenceStore(session) if session.plan.session.verified else None
        self._proofs: ProofChecker | None = None
        if session.plan.session.proves and self._evidence is None:
            self._proofs = ProofChecker(session.transcript, session.key)
        # The first round starts when those who made the key have pledged.
        self._unpledged = set(session.qualified) if self._evidence else set()
        self._attendance = Attendance()
        self._failures: Counter[int] = Counter()
        self._now = Proceedings(0)
        self._lost: list[frozenset[int]] = []
        self._withheld = 0
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
            round=self._now.record(self._sums.ring),
            attendance=self._attendance.record(),
            evidence=() if self._evidence is None else (self._evidence.record(),),
            sums=self._sums.record(),
            blame=self._blame.record(),
            lost=tuple(kept.write_indices(contributors) for contributors in self._lost),
            withheld=self._withheld,
        )

    def resume(self, record: AggregatorRecord) -> None:
        """Take over what was kept; EncodingError when it makes no sense."""
        clients = self.plan.session.num_clients
        self.state = kept.read_state(AggregatorState, record.state)
        self.members = kept.read_indices(record.members, clients)
        self._able = kept.read_indices(record.able, clients)
        self._unpledged = kept.read_indices(record.unpledged, clients)
        self._failures = kept.read_counts(record.failures)
        self._now.resume(record.round, self._sums.ring, self.plan)
        self._attendance.resume(record.attendance)
        self._blame.resume(record.blame)
        self._resume_evidence(record.evidence)
        self._resume_sums(record)
        self._lost = [frozenset(kept.read_indices(lost, clients)) for lost in record.lost]
        self._withheld = record.withheld
        self._check_resumed()

    def _resume_evidence(self, records: tuple[EvidenceRecord, ...]) -> None:
        if len(records) != (self._evidence is not None):
            raise EncodingError("there is evidence, or none, where it does not belong")
        if self._evidence is not None:
            self._evidence.resume(records[0])

    def _resume_sums(self, record: AggregatorRecord) -> None:
        """Take over the sums of the round under way, and what is wanted of them."""
        contributors = set(self._now.contributors)
        parts = [] if self.state is IDLE else self._runs(self._now.draw)
        if self.keeps_sum:
            parts = list(partition.split(parts, contributors, self.plan.session.min_contributors))
        self._sums.resume(parts, record.sums, contributors)
        if self.keeps_sum:
            self._now.want(self._groups())
        self._now.resume_wanted(record.round.wanted, self.plan)

    def _check_resumed(self) -> None:
        """Raise EncodingError when the parts do not fit, so that a round could not go on."""
        now, session = self._now, self.plan.session
        groups = session.max_groups if now.draw.number else 1
        if not partition.is_draw(now.draw, groups):
            raise EncodingError("the draw of the round under way makes no sense")
        asked = bool(now.asked) and len(now.active) == session.threshold and bool(now.contributors)
        if self.keeps_sum and not asked:
            raise EncodingError("the round under way does not fit its sum")

    # -- from outside --------------------------------------------------------------------------

    @property
    def excluded(self) -> set[int]:
        """Clients that were found out."""
        return set(self._blame.excluded)

    @property
    def round(self) -> int:
        """Number of the round that is under way, or was last."""
        return self._now.number

    @property
    def keeps_sum(self) -> bool:
        """Whether decryption has begun and the sum may still be had."""
        return self.state in (DECRYPTING, KEEPING)

    def resume_at(self, last: int) -> None:
        """Count on from a round that is over: the next one has the number after it.

        Raises:
            LocalProtocolError: a round is under way, or this one is older than the last.
        """
        if self.state is not IDLE or last < self.round:
            raise LocalProtocolError(f"round {self.round} cannot be followed by round {last + 1}")
        self._now = Proceedings(last)

    def start_round(self, model: bytes, present: Iterable[int]) -> list[Output]:
        """Send the model to the clients that are present and expect their updates.

        Raises:
            LocalProtocolError: a round is under way or its sum is kept, or there are no more.
        """
        if self.round >= self.plan.session.rounds:
            raise LocalProtocolError(f"the session has only {self.round} rounds")
        self._move("start")
        self._now = Proceedings(self.round + 1, draw=self._blame.draw)
        self._sums.begin(self._runs(self._now.draw))
        here = set(present) - set(self._blame.excluded)
        there, reason = self._invited(here)
        # Beside a lost sum the tardy are awaited too: without them it would show theirs.
        needed = len(there) if self._lost else self.plan.session.min_contributors
        self._attendance.begin(there, needed)
        if reason:
            return self._withhold(reason)
        # Who may not contribute may decrypt.
        self._now.sitting = self._sit_out() | (here - there)
        self._attendance.present |= here
        self._attendance.expect_none_of(self._now.sitting)
        pledges = self._list_pledges(model)
        draw = partition.announced(self._now.draw)
        message = RoundStart(self.round, model, pledges, self.session.transcript, draw)
        outputs: list[Output] = [Send(index, message) for index in self._told()]
        return outputs if self._attendance.expected else outputs + self._close()

    def _sit_out(self) -> set[int]:
        """Return who does not contribute in this round, since groups tell nothing of suspects."""
        if self._lost:
            return set()  # The sum would differ from the one that was lost by them.
        contributors = self._attendance.expected
        if self._evidence is not None:
            contributors = contributors & self._evidence.pledged()
        session = self.plan.session
        divided = session.max_groups > 1 and len(contributors) >= 2 * session.min_contributors
        return set() if divided else self._blame.sit_out(self.round, contributors)

    def _runs(self, draw: Draw) -> list[tuple[int, ...]]:
        return partition.runs(self.session.transcript, draw, self.plan.session.num_clients)

    def _split(self, contributors: Collection[int]) -> tuple[tuple[int, ...], ...]:
        """Return the groups that these contributors make."""
        smallest = self.plan.session.min_contributors
        return partition.split(self._sums.parts, contributors, smallest)

    def _told(self) -> list[int]:
        """Return who takes part in the round and follows it."""
        return sorted(self._attendance.present - self._now.sitting)

    def _invited(self, present: set[int]) -> tuple[set[int], str]:
        """Return who may contribute beside the sums that were lost; or nobody, and why."""
        fewest = self.plan.session.min_contributors
        if len(present) < fewest or self._withheld >= MAX_WITHHELD:
            return present, ""
        chosen = overlap.invited(self._lost, present, fewest, self._split)
        return set(chosen), "" if chosen else self._too_close(present)

    def _too_close(self, contributors: Collection[int]) -> str:
        """Return why a sum of these shows too much beside one that was lost; else nothing."""
        fewest = self.plan.session.min_contributors
        exposed = sorted(overlap.exposed(self._lost, self._split(contributors), fewest))
        if not exposed:
            return ""
        return (
            f"beside the sum lost before it would show that of clients {exposed}, and at least "
            f"{fewest} must be in a sum; wait for those who are away"
        )

    def _withhold(self, reason: str) -> list[Output]:
        """End a round of which nothing was decrypted, lest it show too much."""
        self._withheld += 1
        return self._abandon(reason)

    def _list_pledges(self, model: bytes) -> tuple[Pledge, ...]:
        """Return who contributes which c1, where aggregates are verified; expect nobody else."""
        if self._evidence is None:
            return ()
        self._unpledged = set()
        draw = partition.announced(self._now.draw)
        pledges = self._evidence.begin(self.round, model, self._told(), draw)
        named = {pledge.index for pledge in pledges}
        self._attendance.expect_none_of(self._attendance.present - named)
        return pledges

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take one message of a client on the roster."""
        if not 1 <= sender <= self.plan.session.num_clients:
            raise UnexpectedSender(sender, "it is on no roster")
        if sender in self._blame.excluded:
            reason = self._blame.excluded[sender]
            raise RemoteProtocolError(sender, f"client {sender} is excluded: {reason}")
        return super().receive(sender, message)

    def _exclude(self, client: int, reason: str) -> list[Output]:
        """Go on without a client that was found out, for the rest of the session."""
        self.members.discard(client)
        self._able.discard(client)
        self._blame.excluded[client] = reason
        return [Excluded(client, reason), *self.lost(client)]

    def lost(self, *peers: int) -> list[Output]:
        """Go on without clients that vanished or misbehaved in this round, all at once."""
        self._attendance.lost(peers)
        self._now.returned.difference_update(peers)
        self._unpledged.difference_update(peers)
        if self.state is COLLECTING and not self._attendance.expected:
            return self._close()
        if self.keeps_sum:
            self._now.fallen.update(peers)
        if self.state is DECRYPTING and set(peers) & set(self.waiting_for()):
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
        if self.state is KEEPING:
            self._now.silent.update(self.waiting_for())
            return self._give_up(self._shortage())
        self._unpledged = set()
        return []

    def abandon(self, reason: str) -> list[Output]:
        """Give up the round under way, if there is one."""
        if self.keeps_sum:
            return self._give_up(reason)
        return [] if self.state is IDLE else self._abandon(reason)

    def waiting_for(self) -> tuple[int, ...]:
        """Return whose answer is still missing."""
        if self.state is COLLECTING:
            return tuple(sorted(self._attendance.expected))
        if self.state is DECRYPTING:
            return self._now.unanswered()
        if self.state is KEEPING:
            return tuple(sorted(self._may_return()))
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
        if self.state is KEEPING:  # and with its share perhaps the sum
            rest += self._next_attempt()
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
        if self.keeps_sum:
            self._attendance.present.add(sender)
            self._now.awake(sender)
        rest = self._next_attempt() if self.state is KEEPING else []
        return [Send(sender, opened), *rest]

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
        if sender in self._now.sitting and message.round == self.round:
            raise UnexpectedSender(sender, f"it takes no part in round {self.round}")
        if message.segment:
            raise MalformedMessage(sender, "its contribution is cut into segments")
        add = self._add if self.state is COLLECTING else None
        try:
            taken = self._now.take(sender, message, self._attendance, add)
        except Unproven as lie:
            return self._exclude(sender, lie.reason)
        goes_on = isinstance(taken, Outdated) or self._attendance.expected
        return [taken] if goes_on else [taken, *self._close()]

    def _add(self, sender: int, message: Contribution) -> None:
        try:
            parsed = self._sums.parse(message)
            if self._evidence is not None:
                self._evidence.accept(sender, message)
        except EncodingError as error:
            raise MalformedMessage(sender, f"its contribution is malformed: {error}") from error
        if self._proofs is not None:
            self._proofs.check(sender, message, parsed.c1)
        self._sums.add(sender, parsed)

    def _close(self) -> list[Output]:
        """Fix U and ask the first active set."""
        contributors, minimum = self._now.announced(), self.plan.session.min_contributors
        if len(contributors) < minimum:
            reason = f"{len(contributors)} updates arrived, at least {minimum} must be in a sum"
            # Others were there, but left out for the sake of a lost sum.
            left_out = self._lost and self._now.sitting
            return self._withhold(reason) if left_out else self._abandon(reason)
        if (reason := self._too_close(contributors)) and self._withheld < MAX_WITHHELD:
            return self._withhold(reason)
        self._move("close")
        groups = self._split(contributors)
        exposed = overlap.exposed(self._lost, groups, minimum)
        warning: list[Output] = [Overlap(self.round, tuple(sorted(exposed)))] if exposed else []
        self._sums.close(contributors)
        self._now.want(self._groups())
        return [*warning, Closed(self.round, contributors), *self._next_attempt()]

    def _groups(self) -> list[Group]:
        """Return the groups, without c1 where decryptors add up the evidence."""
        return [
            Group(part, b"" if self._evidence else self._sums.c1(place))
            for place, part in enumerate(self._sums.parts)
        ]

    # -- decryption ----------------------------------------------------------------------------

    def _next_attempt(self) -> list[Output]:
        """Ask t live decryptors, the punctual contributors first."""
        now, session = self._now, self.plan.session
        tried = {active for wanted in now.missing() for active in wanted.wrong}
        if tried:
            return self._ask_others(tried)
        able = self._awaiting_request()
        if len(able) < session.threshold and now.overtake(session.max_attempts):
            able = self._awaiting_request()
        if now.attempt >= session.max_attempts:
            return self._give_up(f"no decryption in {now.attempt} attempts")
        if len(able) < session.threshold:
            return self._keep()
        return self._ask(able)

    def _ask_others(self, tried: Set[tuple[int, ...]]) -> list[Output]:
        """Ask others for what was wrong under these, or go without it.

        Those first that were asked for it least often, so that soon nobody was asked each time, and
        members of the group, so that few are suspected.
        """
        now, session = self._now, self.plan.session
        asked = Counter(index for active in tried for index in active)
        inside = {i for wanted in now.missing() for i in wanted.contributors}
        able = sorted(self._awaiting_request(), key=lambda i: (asked[i], i not in inside))
        settled = beyond_decryptors(tried, session.culprits)
        if settled or now.attempt >= session.max_attempts:
            return self._conclude()
        if len(able) < session.threshold:
            return self._keep() if len(now.missing()) == len(now.wanted) else self._conclude()
        if tuple(sorted(able[: session.threshold])) in tried:
            return self._conclude()
        return self._ask(able)

    def _ask(self, able: Sequence[int]) -> list[Output]:
        """Ask the first t of these for all groups that are missing."""
        now = self._now
        if self.state is KEEPING:
            self._move("ask")
        now.attempt += 1
        now.active, now.shares = tuple(sorted(able[: self.plan.session.threshold])), {}
        now.asked = tuple(i for i, wanted in enumerate(now.wanted) if wanted.total is None)
        request = self._request()
        retried: list[Output] = [Retried(now.number, now.attempt)] if now.attempt > 1 else []
        return [*retried, *(Send(index, request) for index in now.active)]

    def _awaiting_request(self) -> list[int]:
        """Return who would answer now, as far as is known, in the order of asking."""
        return [i for i in self._ranked() if i in self._attendance.present - self._now.silent]

    def _may_return(self) -> set[int]:
        """Return who could decrypt, but is away or does not answer."""
        return self._able - self._now.refused - set(self._awaiting_request())

    def _shortage(self) -> str:
        answering, needed = len(self._awaiting_request()), self.plan.session.threshold
        return f"{answering} decryptors answer, {needed} are needed"

    def _keep(self) -> list[Output]:
        """Wait for decryptors if some were asked before and enough may come back."""
        now, returning = self._now, self._may_return()
        if not now.attempt:
            return self._abandon(self._shortage())
        if len(returning) + len(self._awaiting_request()) < self.plan.session.threshold:
            return self._give_up(self._shortage())
        if self.state is KEEPING:
            return []
        self._move("keep")
        return [Kept(now.number, tuple(sorted(returning)))]

    def _request(self) -> DecryptionRequest:
        """Return what D is asked for; with its evidence where aggregates are verified."""
        now = self._now
        request = DecryptionRequest(
            now.number,
            now.attempt,
            now.active,
            tuple(Group(wanted.contributors, wanted.c1) for wanted in now.wanted),
            transcript=self.session.transcript,
            draw=now.draw,
            asked=now.asked,
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
        tried = self._blame.tried(self.round)

        def rank(index: int) -> tuple[int, int, int, int]:
            known = early.get(index, len(early))
            return tried.get(index, 0), self._failures[index], known, index

        return sorted(self._able, key=rank)

    def _is_current(self, message: DecryptionShare | Refusal) -> bool:
        """Return whether the attempt that a message answers is under way."""
        now = self._now
        answered = (message.round, message.attempt) == (now.number, now.attempt)
        return answered and self.state is DECRYPTING

    def _woken(self, sender: int, message: DecryptionShare | Refusal) -> list[Output]:
        """Ask a decryptor again whose answer came too late: it was asleep, and is not now."""
        now = self._now
        late = self.state is KEEPING and message.round == now.number
        if not late or sender not in (now.silent - now.refused) & self._able:
            return []
        now.awake(sender)
        return self._next_attempt()

    def _on_share(self, sender: int, message: DecryptionShare) -> list[Output]:
        check_transcript(message.transcript, self.session.transcript, sender)
        now, plan = self._now, self.plan
        if not self._is_current(message):
            return [Outdated(sender), *self._woken(sender, message)]
        if sender not in now.active:
            raise UnexpectedSender(sender, "it was not asked for a decryption share")
        if sender in now.shares:
            raise DuplicateMessage(sender, "it sent this decryption share before")
        try:
            share = decryption.read_shares(
                self._sums.ring,
                plan.threshold,
                message.share,
                plan.dropped_share,
                len(now.asked),
            )
        except EncodingError as error:
            raise MalformedMessage(sender, f"its share is malformed: {error}") from error
        now.shares[sender] = share
        return [] if now.unanswered() else self._recover()

    def _recover(self) -> list[Output]:
        """Open the sums of all groups that were asked for, and ask again for what is wrong."""
        now, blocks = self._now, self.plan.threshold.blocks
        for order, place in enumerate(now.asked):
            cut = slice(order * blocks, (order + 1) * blocks)
            shares = [share[cut] for share in now.shares.values()]
            self._judge_sum(now.wanted[place], self._sums.recover(place, shares))
        return self._next_attempt() if now.missing() else self._conclude()

    def _judge_sum(self, wanted: Wanted, total: Integers | None) -> None:
        """Take a sum that is plausible, or note under whom it was not."""
        wrong = FORGED if total is None else self._judge(total, len(wanted.contributors))
        if total is None or wrong:
            wanted.wrong.append(self._now.active)
            wanted.reason = wrong
            return
        wanted.total, wanted.reason = total, ""
        # Others were right, so one of each of these sets was not.
        for active in wanted.wrong:
            self._failures.update(active)

    def _conclude(self) -> list[Output]:
        """End the round with the groups whose sums are plausible, if there are any."""
        now, named = self._now, self._settle()
        right = [(w.contributors, w.total) for w in now.wanted if w.total is not None]
        if not right:
            return self._abandon(now.wanted[0].reason, named)
        contributors = tuple(sorted(i for group, _ in right for i in group))
        total = _add([part for _, part in right])
        groups: tuple[GroupSum, ...] = ()
        if self.plan.session.max_groups > 1:
            groups = tuple(GroupSum(w.contributors, w.total, w.reason) for w in now.wanted)
        # Updates of another model follow, which have no difference to those that were lost.
        self._lost, self._withheld = [], 0
        summed = Summed(now.number, contributors, total, now.attempt, groups)
        return [summed, *self._end(contributors, named)]

    def _on_refusal(self, sender: int, message: Refusal) -> list[Output]:
        check_transcript(message.transcript, self.session.transcript, sender)
        if not self._is_current(message) or sender not in self._now.active:
            return [Outdated(sender), *self._woken(sender, message)]
        self._now.silent.add(sender)
        self._now.refused.add(sender)
        if self._now.attempt <= message.answered <= self.plan.session.max_attempts:
            self._now.overtaken[sender] = message.answered
        self._failures[sender] += 1
        return self._next_attempt()

    def _give_up(self, reason: str) -> list[Output]:
        """End a round whose decryption had begun, and remember whose sum somebody may know."""
        groups = [frozenset(wanted.contributors) for wanted in self._now.wanted]
        self._lost += [group for group in groups if group not in self._lost]
        return self._abandon(f"lost after decryption began: {reason}")

    def _abandon(self, reason: str, named: Iterable[int] | None = None) -> list[Output]:
        """End the round without a sum; `named` by its evidence, if that is known already."""
        now = self._now
        named = self._settle() if named is None else named
        everybody = set(range(1, self.plan.session.num_clients + 1))
        expected = everybody - now.sitting - set(self._blame.excluded)
        missing = (expected - set(now.contributors)) | now.silent | now.fallen
        abandoned = Abandoned(
            round=now.number,
            reason=reason,
            begun=now.attempt > 0,
            contributors=now.announced(),
            missing=tuple(sorted(missing)),
            attempts=now.attempt,
        )
        return [abandoned, *self._end((), named)]

    def _settle(self) -> list[int]:
        """Turn what was wrong in this round into evidence; return who is named by it."""
        lost: list[set[int]] = []
        spoiled: list[set[int]] = []
        for wanted in self._now.wanted:
            pieces = lost if wanted.total is None else spoiled
            # Also when others got it right: a contributor that is one of them can undo what it did.
            pieces += [{*wanted.contributors, *active} for active in wanted.wrong]
        named = self._blame.settle(self.round, lost, spoiled)
        if self._blame.overdrawn:
            most = self.plan.session.culprits
            for wanted in self._now.missing():
                wanted.reason += f"; more than {most} cheat, so nobody is named"
        return named

    def _end(self, counted: tuple[int, ...], named: Iterable[int]) -> list[Output]:
        """Forget the sums and what led to them, and tell everybody whose updates were counted."""
        self._move("end")
        self._sums.clear()
        self._now.wanted, self._now.asked, self._now.shares = [], (), {}
        if self._evidence is not None:
            self._evidence.clear()
        outputs: list[Output] = []
        for client in named:
            outputs += self._exclude(client, self._blame.reason())
        end = RoundEnd(self.round, counted, self.session.transcript)
        return outputs + [Send(index, end) for index in self._told()]


def _add(totals: list[Integers]) -> Integers:
    """Return the sum of vectors; of one the vector itself, which may be long."""
    if len(totals) == 1:
        return totals[0]
    total = totals[0].astype(np.int64)
    for more in totals[1:]:
        total += more
    return total
