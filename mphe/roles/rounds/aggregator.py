"""The server's part in the rounds: add ciphertexts, have the sum decrypted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mphe.arithmetic.ring import Limbs
from mphe.errors import (
    DuplicateMessage,
    EncodingError,
    LocalProtocolError,
    MalformedMessage,
    RemoteProtocolError,
    RoundAborted,
    UnexpectedSender,
)
from mphe.roles.attendance import Attendance
from mphe.roles.machine import Event, Machine, Output, Send, Transitions
from mphe.roles.setup import returning
from mphe.roles.setup.common import PublicSession, check_epoch, check_transcript
from mphe.roles.verified.evidence_store import Ledger
from mphe.scheme import decryption
from mphe.scheme.packing import BlockMap
from mphe.scheme.running_sum import RunningSum
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


class State(Enum):
    """What the server does."""

    IDLE = "idle"
    COLLECTING = "collecting"
    DECRYPTING = "decrypting"


@dataclass(frozen=True)
class Accepted(Event):
    """A contribution is in the sum."""

    sender: int
    note: bytes


@dataclass(frozen=True)
class Late(Event):
    """A message of a round or attempt that is over; nobody is blamed."""

    sender: int


@dataclass(frozen=True)
class Joined(Event):
    """A client contributes from the next round on; it cannot decrypt."""

    sender: int


@dataclass(frozen=True)
class Closed(Event):
    """The round takes no more contributions; decryption begins."""

    round: int
    contributors: tuple[int, ...]


@dataclass(frozen=True)
class Summed(Event):
    """The sum of exactly these contributions, int64 (length,), or float64 without encryption."""

    round: int
    contributors: tuple[int, ...]
    total: NDArray[np.int64] | NDArray[np.float64]
    attempts: int


@dataclass(frozen=True)
class Abandoned(Event):
    """The round ended without a sum."""

    error: RoundAborted
    contributors: tuple[int, ...]
    attempts: int


class Aggregator(Machine[State]):
    """Runs one round after the other with whoever is there."""

    TRANSITIONS: ClassVar[Transitions] = {
        (State.IDLE, "start"): State.COLLECTING,
        (State.IDLE, Join): State.IDLE,
        (State.COLLECTING, Join): State.COLLECTING,
        (State.DECRYPTING, Join): State.DECRYPTING,
        (State.IDLE, Ready): State.IDLE,
        (State.COLLECTING, Ready): State.COLLECTING,
        (State.DECRYPTING, Ready): State.DECRYPTING,
        (State.IDLE, NextPledge): State.IDLE,
        (State.COLLECTING, NextPledge): State.COLLECTING,
        (State.DECRYPTING, NextPledge): State.DECRYPTING,
        (State.IDLE, Contribution): State.IDLE,
        (State.IDLE, DecryptionShare): State.IDLE,
        (State.IDLE, Refusal): State.IDLE,
        (State.COLLECTING, Contribution): State.COLLECTING,
        (State.COLLECTING, DecryptionShare): State.COLLECTING,
        (State.COLLECTING, Refusal): State.COLLECTING,
        (State.COLLECTING, "close"): State.DECRYPTING,
        (State.COLLECTING, "end"): State.IDLE,
        (State.DECRYPTING, Contribution): State.DECRYPTING,
        (State.DECRYPTING, DecryptionShare): State.DECRYPTING,
        (State.DECRYPTING, Refusal): State.DECRYPTING,
        (State.DECRYPTING, "end"): State.IDLE,
    }

    def __init__(self, session: PublicSession, blocks: BlockMap = map) -> None:
        """Take over a session whose key is confirmed; `blocks` computes those of a sum."""
        super().__init__(State.IDLE)
        self.session = session
        self.plan = session.plan
        self.round = 0
        self.members = {*session.qualified, *session.late}
        self._able = set(session.decryptors) - set(session.late)
        self._sum = RunningSum(session.plan, session.crs_seed, blocks)
        self._ledger = Ledger(session) if session.plan.session.verified else None
        # The first round starts when those who made the key have pledged.
        self._unpledged = set(session.qualified) if self._ledger else set()
        self._attendance = Attendance()
        self._contributors: list[int] = []
        self._silent: set[int] = set()
        self._active: tuple[int, ...] = ()
        self._attempt = 0
        self._implausible = 0
        self._fallen: set[int] = set()
        self._welcomed: set[int] = set()
        self._failures: Counter[int] = Counter()
        self._shares: dict[int, list[Limbs]] = {}
        self._handlers = {
            Join: self._on_join,
            Ready: self._on_return,
            NextPledge: self._on_pledge,
            Contribution: self._on_contribution,
            DecryptionShare: self._on_share,
            Refusal: self._on_refusal,
        }

    # -- from outside --------------------------------------------------------------------------

    def start_round(self, model: bytes, present: Iterable[int]) -> list[Output]:
        """Send the model to the clients that are present and expect their updates.

        Raises:
            LocalProtocolError: a round is under way, or the session has no more rounds.
        """
        if self.round >= self.plan.session.rounds:
            raise LocalProtocolError(f"the session has only {self.round} rounds")
        self._fire("start")
        self._welcomed = set()
        self.round += 1
        self._attendance.begin(present, self.plan.session.min_contributors)
        self._contributors, self._silent, self._fallen = [], set(), set()
        self._attempt, self._implausible = 0, 0
        self._sum.clear()
        pledges = self._list_pledges(model)
        message = RoundStart(self.round, model, pledges, self.session.transcript)
        outputs: list[Output] = [Send(index, message) for index in self._there()]
        return outputs if self._attendance.expected else outputs + self._close()

    def _list_pledges(self, model: bytes) -> tuple[Pledge, ...]:
        """Return who contributes which c1, where aggregates are verified; expect nobody else."""
        if self._ledger is None:
            return ()
        self._unpledged = set()
        pledges = self._ledger.begin(self.round, model, self._attendance.present)
        self._attendance.excuse(self._attendance.present - {pledge.index for pledge in pledges})
        return pledges

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take one message of a client on the roster."""
        if not 1 <= sender <= self.plan.session.num_clients:
            raise UnexpectedSender(sender, "it is on no roster")
        return super().receive(sender, message)

    def lost(self, *peers: int) -> list[Output]:
        """Go on without clients that vanished or misbehaved in this round, all at once."""
        self._attendance.lost(peers)
        self._unpledged.difference_update(peers)
        if self.state is State.COLLECTING and not self._attendance.expected:
            return self._close()
        if self.state is State.DECRYPTING:
            self._fallen.update(peers)
            if set(peers) & set(self.waiting_for()):
                self._failures.update(peers)
                return self._next_attempt()
        return []

    def deadline_passed(self) -> list[Output]:
        """Close the round, or ask other decryptors instead of the silent ones."""
        if self.state is State.COLLECTING:
            self._attendance.deadline()
            return self._close()
        if self.state is State.DECRYPTING:
            self._silent |= set(self.waiting_for())
            self._failures.update(self.waiting_for())
            return self._next_attempt()
        self._unpledged = set()
        return []

    def waiting_for(self) -> tuple[int, ...]:
        """Return whose answer is still missing."""
        if self.state is State.COLLECTING:
            return tuple(sorted(self._attendance.expected))
        if self.state is State.DECRYPTING:
            return tuple(index for index in self._active if index not in self._shares)
        return tuple(sorted(self._unpledged))

    @property
    def step(self) -> tuple[object, ...]:
        """What changes whenever a new wait begins."""
        return self.state, self.round, self._attempt

    def _on_join(self, sender: int, message: Join) -> list[Output]:
        """Welcome a client that comes late, or comes again without its share of the key."""
        if message.index != sender:
            raise UnexpectedSender(sender, f"it speaks for client {message.index}")
        check_epoch(message.epoch, sender)
        # The welcome is much longer than the join that asks for it.
        if sender in self._welcomed:
            raise DuplicateMessage(sender, "it joined in this round before")
        self._welcomed.add(sender)
        self.members.add(sender)
        self._able.discard(sender)
        # It has lost what it knew of the round under way.
        rest = self.lost(sender)
        return [Joined(sender), Send(sender, self.session.welcome), *rest]

    def _on_return(self, sender: int, message: Ready) -> list[Output]:
        """Take back a client that still holds its keys."""
        returning.check(self.session, sender, message)
        self.members.add(sender)
        if message.unopened:
            self._able.discard(sender)
        elif sender in self.session.decryptors:
            self._able.add(sender)
        opened = SessionOpen(self.session.decryptors, self.session.welcome.vouches)
        return [Send(sender, opened)]

    def _on_pledge(self, sender: int, message: NextPledge) -> list[Output]:
        if self._ledger is None:
            raise RemoteProtocolError(sender, "it pledges, but aggregates are not verified")
        check_transcript(message.transcript, self.session.transcript, sender)
        self._ledger.pledge(sender, message)
        self._unpledged.discard(sender)
        return []

    # -- contributions -------------------------------------------------------------------------

    def _on_contribution(self, sender: int, message: Contribution) -> list[Output]:
        check_transcript(message.transcript, self.session.transcript, sender)
        if message.segment:
            raise MalformedMessage(sender, "its contribution is cut into segments")
        if message.round < self.round or self.state is not State.COLLECTING:
            if message.round == self.round and sender not in self._contributors:
                self._attendance.just_missed(sender)
            return [Late(sender)]
        if message.round > self.round:
            raise RemoteProtocolError(sender, f"contributes to round {message.round} too early")
        if sender in self._contributors:
            raise DuplicateMessage(sender, f"it contributed to round {self.round} before")
        if sender not in self._attendance.present:
            raise UnexpectedSender(sender, f"it takes no part in round {self.round}")
        try:
            parsed = self._sum.parse(message)
            if self._ledger is not None:
                self._ledger.accept(sender, message)
        except EncodingError as error:
            raise MalformedMessage(sender, f"its contribution is malformed: {error}") from error
        self._sum.add(parsed)
        self._contributors.append(sender)
        self._attendance.arrived(sender)
        accepted = Accepted(sender, message.note)
        return [accepted] if self._attendance.expected else [accepted, *self._close()]

    def _close(self) -> list[Output]:
        """Fix U and ask the first active set."""
        contributors, minimum = self._announced(), self.plan.session.min_contributors
        if len(contributors) < minimum:
            return self._abandon(
                f"{len(contributors)} updates arrived, at least {minimum} must be in a sum"
            )
        self._fire("close")
        self._c1 = b"" if self._ledger else self._sum.c1()
        return [Closed(self.round, contributors), *self._next_attempt()]

    def _there(self) -> list[int]:
        return sorted(self._attendance.present)

    def _announced(self) -> tuple[int, ...]:
        return tuple(sorted(self._contributors))

    # -- decryption ----------------------------------------------------------------------------

    def _next_attempt(self) -> list[Output]:
        """Ask t live decryptors, the punctual contributors first."""
        session = self.plan.session
        needed = session.threshold
        able = [i for i in self._ranked() if i in self._attendance.present - self._silent]
        if len(able) < needed:
            return self._abandon(f"{len(able)} decryptors answer, {needed} are needed")
        if self._attempt >= session.max_attempts:
            return self._abandon(f"no decryption in {self._attempt} attempts")
        self._attempt += 1
        self._active = tuple(sorted(able[:needed]))
        self._shares = {}
        request = DecryptionRequest(
            self.round,
            self._attempt,
            self._active,
            (Group(self._announced(), self._c1),),
            transcript=self.session.transcript,
        )
        if self._ledger is not None:
            statement, evidence = self._ledger.statement, self._ledger.evidence()
            request = replace(
                request, model=statement.model, pledges=statement.pledges, evidence=evidence
            )
        return [Send(index, request) for index in self._active]

    def _ranked(self) -> list[int]:
        """Return the decryptors: those that failed least first, then the early contributors.

        Failures are remembered from round to round, so that a bad one costs one round, not all.
        """
        early = {index: place for place, index in enumerate(self._contributors)}
        return sorted(
            self._able,
            key=lambda index: (self._failures[index], early.get(index, len(early)), index),
        )

    def _on_share(self, sender: int, message: DecryptionShare) -> list[Output]:
        check_transcript(message.transcript, self.session.transcript, sender)
        current = (message.round, message.attempt) == (self.round, self._attempt)
        if self.state is not State.DECRYPTING or not current:
            return [Late(sender)]
        if sender not in self._active:
            raise UnexpectedSender(sender, "it was not asked for a decryption share")
        if sender in self._shares:
            raise DuplicateMessage(sender, "it sent this decryption share before")
        plan = self.plan
        try:
            share = decryption.read_blocks(
                self._sum.ring, plan.threshold, message.share, plan.dropped_share
            )
        except EncodingError as error:
            raise MalformedMessage(sender, f"its share is malformed: {error}") from error
        self._shares[sender] = share
        return self._recover() if len(self._shares) == len(self._active) else []

    def _recover(self) -> list[Output]:
        contributors = self._announced()
        total = self._sum.recover(list(self._shares.values()), len(contributors))
        if total is None:
            self._implausible += 1
            self._failures.update(self._active)
            if self._implausible > 1:
                return self._abandon("the sum is out of range: an update or a share is forged")
            return self._next_attempt()
        self._fire("end")
        self._sum.clear()
        end = RoundEnd(self.round, contributors, self.session.transcript)
        summed = Summed(self.round, contributors, total, self._attempt)
        return [summed, *(Send(index, end) for index in self._there())]

    def _on_refusal(self, sender: int, message: Refusal) -> list[Output]:
        check_transcript(message.transcript, self.session.transcript, sender)
        if (message.round, message.attempt) != (self.round, self._attempt):
            return [Late(sender)]
        if self.state is not State.DECRYPTING or sender not in self._active:
            return [Late(sender)]
        self._silent.add(sender)
        self._failures[sender] += 1
        return self._next_attempt()

    def _abandon(self, reason: str) -> list[Output]:
        """End the round without a sum."""
        expected = set(range(1, self.plan.session.num_clients + 1))
        missing = (expected - set(self._contributors)) | self._silent | self._fallen
        error = RoundAborted(self.round, reason, missing)
        self._fire("end")
        self._sum.clear()
        end = RoundEnd(self.round, (), self.session.transcript)
        abandoned = Abandoned(error, self._announced(), self._attempt)
        return [abandoned, *(Send(index, end) for index in self._there())]
