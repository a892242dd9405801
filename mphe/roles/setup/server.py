"""The server's side of the key set-up: it relays, checks and counts, and learns no secret."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from mphe.arithmetic.ring import Limbs, Ring
from mphe.errors import (
    DuplicateMessage,
    EncodingError,
    MalformedMessage,
    RemoteProtocolError,
    SetupFailed,
    UnexpectedSender,
)
from mphe.plan.plan import Plan
from mphe.roles.machine import Event, Machine, Output, Send, Transitions
from mphe.roles.setup import admission as late
from mphe.roles.setup import common as setup
from mphe.roles.setup.common import PublicSession
from mphe.roles.setup.confirmation import Confirmation
from mphe.scheme import sealing
from mphe.wire.messages import (
    Commit,
    Commitments,
    DecryptionShare,
    Join,
    Message,
    Qualified,
    Ready,
    Refusal,
    Reveal,
    Roster,
    SealedShare,
    SessionOpen,
)


class State(Enum):
    """What the server waits for."""

    JOINING = "joining"
    COMMITTING = "committing"
    REVEALING = "revealing"
    READYING = "readying"
    CONFIRMING = "confirming"
    OPEN = "open"
    FAILED = "failed"


@dataclass(frozen=True)
class SetupDone(Event):
    """The collective key exists and is confirmed.

    Attributes:
        session: what the rounds need.
        missing: clients that are not there any more.
        unconfirmed: clients whose shares did not open or did not fit; they only contribute.
    """

    session: PublicSession
    missing: tuple[int, ...]
    unconfirmed: tuple[int, ...]


@dataclass(frozen=True)
class SetupAbandoned(Event):
    """No key came about."""

    error: SetupFailed


class SetupServer(Machine[State]):
    """Collects each stage from all who are left, then moves on."""

    TRANSITIONS: ClassVar[Transitions] = {
        (State.JOINING, Join): State.JOINING,
        (State.JOINING, "complete"): State.COMMITTING,
        (State.COMMITTING, Commit): State.COMMITTING,
        (State.COMMITTING, "complete"): State.REVEALING,
        (State.REVEALING, Reveal): State.REVEALING,
        (State.REVEALING, "complete"): State.READYING,
        (State.COMMITTING, Join): State.COMMITTING,
        (State.REVEALING, Join): State.REVEALING,
        (State.READYING, Join): State.READYING,
        (State.CONFIRMING, Join): State.CONFIRMING,
        (State.READYING, Ready): State.READYING,
        (State.READYING, "complete"): State.CONFIRMING,
        (State.CONFIRMING, DecryptionShare): State.CONFIRMING,
        (State.CONFIRMING, Refusal): State.CONFIRMING,
        (State.CONFIRMING, "complete"): State.OPEN,
        (State.JOINING, "fail"): State.FAILED,
        (State.COMMITTING, "fail"): State.FAILED,
        (State.REVEALING, "fail"): State.FAILED,
        (State.READYING, "fail"): State.FAILED,
        (State.CONFIRMING, "fail"): State.FAILED,
    }

    def __init__(self, plan: Plan, identities: setup.Identities) -> None:
        """Wait for every client on the roster.

        Args:
            plan: the same for all parties.
            identities: Ed25519 public keys of all clients.
        """
        super().__init__(State.JOINING)
        self.plan = plan
        self.ring = Ring(plan.threshold.ring)
        self._identities = identities
        self._epoch = setup.epoch_parts(plan, identities)
        self._everybody = frozenset(range(1, plan.session.num_clients + 1))
        self._waiting: set[int] = set(self._everybody)
        self._gone: set[int] = set()
        self._joins: dict[int, Join] = {}
        self._commits: dict[int, Commit] = {}
        self._reveals: dict[int, Reveal] = {}
        self._key_shares: dict[int, Limbs] = {}
        self._ready: dict[int, Ready] = {}
        self._late: set[int] = set()
        self._handlers = {
            Join: self._on_join,
            Commit: self._on_commit,
            Reveal: self._on_reveal,
            Ready: self._on_ready,
            DecryptionShare: self._on_share,
            Refusal: self._on_refusal,
        }
        self._next: dict[State, Callable[[], list[Output]]] = {
            State.JOINING: self._send_roster,
            State.COMMITTING: self._send_commitments,
            State.REVEALING: self._send_qualified,
            State.READYING: self._start_confirmation,
            State.CONFIRMING: self._conclude,
        }

    # -- from outside --------------------------------------------------------------------------

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take one message of a client that is still in the set-up, or comes too late for it."""
        late = isinstance(message, Join) and self.state is not State.JOINING
        if sender not in self._everybody or (sender in self._gone and not late):
            raise UnexpectedSender(sender, "it is not part of this set-up")
        return super().receive(sender, message)

    def lost(self, *peers: int) -> list[Output]:
        """Go on without clients that vanished or misbehaved."""
        return self._drop(set(peers))

    def deadline_passed(self) -> list[Output]:
        """Go on without those that have not answered."""
        return self._drop(set(self._waiting))

    def waiting_for(self) -> tuple[int, ...]:
        """Return whose answer is still missing."""
        return tuple(sorted(self._waiting))

    @property
    def step(self) -> tuple[object, ...]:
        """What changes whenever a new wait begins."""
        attempt = self._confirmation.attempt if self.state is State.CONFIRMING else 0
        return self.state, attempt

    def _drop(self, peers: set[int]) -> list[Output]:
        if self.state not in self._next:
            return []
        self._gone |= peers & self._everybody
        self._waiting -= peers
        if self.state is State.CONFIRMING:
            return self._confirm_without(peers)
        return [] if self._waiting else self._complete()

    def _arrived(self, sender: int) -> list[Output]:
        self._waiting.discard(sender)
        return [] if self._waiting else self._complete()

    def _complete(self) -> list[Output]:
        """Leave a stage; too few clients end the set-up."""
        return self._shortage() or self._next[self.state]()

    def _shortage(self) -> list[Output]:
        """Return the failure if those who are left cannot make a key that is of use."""
        parameters = self.plan.session
        left = self._taking_part()
        decryptors = [index for index in left if index <= parameters.decryptors]
        needed = parameters.num_clients if not parameters.robust else parameters.min_contributors
        if len(decryptors) >= parameters.threshold and len(left) >= needed:
            return []
        return self._fail(
            f"{len(left)} clients are left, {max(needed, parameters.threshold)} are needed"
        )

    def _taking_part(self) -> set[int]:
        """Return the clients that are in the key so far."""
        if self.state in (State.READYING, State.CONFIRMING):
            return set(self._ready) - self._gone
        if self.state is State.REVEALING:
            return set(self._reveals)
        return set(self._commits if self.state is State.COMMITTING else self._joins) - self._gone

    def _fail(self, reason: str, culprits: Iterable[int] = ()) -> list[Output]:
        missing = (self._everybody - self._taking_part()) | set(culprits)
        self._fire("fail")
        return [SetupAbandoned(SetupFailed(reason, missing))]

    def _next_stage(self, waiting: Iterable[int]) -> None:
        self._fire("complete")
        self._waiting = set(waiting) - self._gone

    # -- joining, committing, revealing ----------------------------------------------------------

    def _on_join(self, sender: int, join: Join) -> list[Output]:
        self._own(sender, join.index, self._joins.keys() - self._gone)
        setup.check_join(self._epoch, self._identities, join, sender)
        if self.state is not State.JOINING:
            self._late.add(sender)
            return []
        self._joins[sender] = join
        return self._arrived(sender)

    def _own(self, sender: int, index: int, collected: Container[int]) -> None:
        """Raise unless a client speaks for itself, and for the first time in this stage."""
        if index != sender:
            raise UnexpectedSender(sender, f"it speaks for client {index}")
        if sender in collected:
            raise DuplicateMessage(sender, "it sent this before")

    def _send_roster(self) -> list[Output]:
        joins = tuple(self._joins[index] for index in sorted(self._taking_part()))
        joined = setup.joins_digest(self._identities, joins)
        self._session = setup.session_name(self._epoch, joined)
        self._crs_seed = setup.reference_seed(joined)
        self._reader = setup.KeyShareReader(self.plan, self.ring, self._session, self._crs_seed)
        self._next_stage(join.index for join in joins)
        roster = Roster(self.plan.digest, joins)
        return [Send(join.index, roster) for join in joins]

    def _on_commit(self, sender: int, commit: Commit) -> list[Output]:
        self._own(sender, commit.index, self._commits)
        setup.check_commit(self._identities, self._session, commit, sender)
        self._commits[sender] = commit
        return self._arrived(sender)

    def _send_commitments(self) -> list[Output]:
        present = sorted(self._taking_part())
        self._commit_list = tuple(self._commits[index] for index in present)
        self._next_stage(present)
        return [Send(index, Commitments(self._commit_list)) for index in present]

    def _on_reveal(self, sender: int, message: Reveal) -> list[Output]:
        self._own(sender, message.reveal.index, self._reveals)
        commitment = self._commits[sender].commitment
        setup.check_reveal(self._identities, self._session, commitment, message.reveal, sender)
        self._check_receivers(sender, message)
        key_share = self._reader.read(message.reveal, sender)
        self._key_shares[sender] = key_share
        self._reveals[sender] = message
        return self._arrived(sender)

    def _check_receivers(self, sender: int, message: Reveal) -> None:
        """Raise unless there is one sealed share for each other decryptor that committed."""
        parameters = self.plan.session
        listed = [commit.index for commit in self._commit_list]
        expected = [i for i in listed if i <= parameters.decryptors and i != sender]
        if sorted(item.peer for item in message.shares) != (expected if parameters.robust else []):
            raise MalformedMessage(sender, "it dealt shares to the wrong clients")
        length = self.ring.wire_length(self.ring.degree) + sealing.TAG_BYTES
        if any(len(item.sealed) != length for item in message.shares):
            raise MalformedMessage(sender, "it dealt a share of the wrong length")

    def _send_qualified(self) -> list[Output]:
        """Fix Q; send everybody its b_i, and each decryptor what was sealed to it."""
        qualified = sorted(self._reveals)
        reveals = tuple(self._reveals[index].reveal for index in qualified)
        shares = [self._key_shares[index] for index in qualified]
        self._key = setup.collective_key(self.ring, self._crs_seed, shares)
        self._transcript = setup.transcript(self._session, self._commit_list, qualified, self._key)
        self._next_stage(qualified)
        sealed: dict[int, list[SealedShare]] = {index: [] for index in qualified}
        for dealer in qualified:
            for item in self._reveals[dealer].shares:
                if item.peer in sealed:
                    sealed[item.peer].append(SealedShare(dealer, item.sealed))
        return [Send(i, Qualified(reveals, tuple(sealed[i]))) for i in qualified]

    # -- readiness and confirmation ---------------------------------------------------------------

    def _on_ready(self, sender: int, message: Ready) -> list[Output]:
        if sender in self._ready:
            raise DuplicateMessage(sender, "it sent this before")
        identity = self._identities[sender]
        if not sealing.verify(identity, message.signature, "ready", self._transcript):
            raise MalformedMessage(sender, "it did not sign the session that all others signed")
        if not set(message.unopened) <= set(self._reveals):
            raise MalformedMessage(sender, "it complains of a client that dealt no shares")
        self._ready[sender] = message
        return self._arrived(sender)

    def _able(self) -> list[int]:
        """Return the clients that hold a share and are still there."""
        limit = self.plan.session.decryptors
        return [
            index
            for index in sorted(self._ready)
            if index <= limit and not self._ready[index].unopened and index not in self._gone
        ]

    def _start_confirmation(self) -> list[Output]:
        """Have the key tried out by those who can decrypt."""
        if len(self._able()) >= self.plan.session.threshold:
            self._fire("complete")
            self._confirmation = Confirmation(self.plan, self._key, self._transcript)
        return self._confirm()

    def _confirm(self) -> list[Output]:
        """Ask all sets, or fail when there are too few decryptors or attempts."""
        able, threshold = self._able(), self.plan.session.threshold
        if len(able) < threshold:
            dealers = {dealer for ready in self._ready.values() for dealer in ready.unopened}
            return self._fail(
                f"{len(able)} decryptors are left, {threshold} are needed"
                + (f"; shares dealt by {sorted(dealers)} did not open" if dealers else ""),
                dealers,
            )
        requests = self._confirmation.ask(able)
        if not requests:
            return self._fail("decryptors keep vanishing while the key is confirmed")
        self._waiting = self._confirmation.waiting()
        return requests

    def _on_share(self, sender: int, message: DecryptionShare) -> list[Output]:
        setup.check_transcript(message.transcript, self._transcript, sender)
        confirmation = self._confirmation
        if message.round != 0 or not confirmation.wanted(message.attempt):
            # An answer to a set that was given up in the meantime.
            return []
        if not confirmation.expects(sender, message.attempt):
            raise DuplicateMessage(sender, "it was not asked for this share, or sent it before")
        try:
            confirmation.add(sender, message.attempt, message.share)
        except EncodingError as error:
            raise MalformedMessage(sender, str(error)) from error
        return self._await_shares()

    def _await_shares(self) -> list[Output]:
        self._waiting = self._confirmation.waiting()
        return [] if self._waiting else self._complete()

    def _on_refusal(self, sender: int, message: Refusal) -> list[Output]:
        setup.check_transcript(message.transcript, self._transcript, sender)
        if not self._confirmation.wanted(message.attempt):
            return []
        raise RemoteProtocolError(sender, f"it refuses to confirm the key: {message.reason[:200]}")

    def _confirm_without(self, peers: set[int]) -> list[Output]:
        """Drop the sets of lost clients; start over when one of them was in every set."""
        if self._confirmation.drop(peers):
            return self._shortage() or self._confirm()
        return self._await_shares()

    def _conclude(self) -> list[Output]:
        """Open the session with the decryptors whose shares give back the message."""
        confirmed = self._confirmation.confirmed()
        if not confirmed:
            base = self._confirmation.base()
            if self._confirmation.another_base():
                return self._confirm()
            # A dealer who was unfair to one of them, or one of them itself.
            return self._fail(
                "the key does not decrypt what it encrypts, whoever is asked beside clients "
                f"{sorted(base)}",
                base,
            )
        present = sorted(self._taking_part())
        missing = tuple(sorted(self._everybody.difference(present)))
        limit = self.plan.session.decryptors
        unconfirmed = tuple(i for i in present if i <= limit and i not in confirmed)
        qualified, decryptors = tuple(sorted(self._reveals)), tuple(sorted(confirmed))
        welcome = late.compose(
            self._joins, self._commit_list, self._reveals, self._ready, decryptors
        )
        session = PublicSession(
            self.plan,
            self._transcript,
            self._crs_seed,
            qualified,
            decryptors,
            welcome,
            tuple(sorted(self._late)),
            self._identities,
            self._key,
        )
        self._fire("complete")
        opened = SessionOpen(decryptors, welcome.vouches)
        done = SetupDone(session, missing, unconfirmed)
        news: list[Output] = [Send(index, opened) for index in present]
        # First of all the session can be kept: clients keep their keys as soon as it is open.
        return [done, *news, *(Send(index, welcome) for index in session.late)]
