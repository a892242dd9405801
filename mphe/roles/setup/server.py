"""The server's side of the key set-up: it relays, checks and counts, and learns no secret."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import ClassVar, TypeVar

from mphe.arithmetic.ring import Ring
from mphe.errors import (
    DuplicateMessage,
    EncodingError,
    LocalProtocolError,
    MalformedMessage,
    RemoteProtocolError,
    SetupFailed,
    UnexpectedSender,
)
from mphe.plan.plan import Plan
from mphe.roles import kept
from mphe.roles.machine import Accepts, Event, Machine, Moves, Output, Send
from mphe.roles.setup import admission
from mphe.roles.setup import common as setup
from mphe.roles.setup.common import KeyShareReader, PublicSession
from mphe.roles.setup.confirmation import Confirmation, Trials, TrialsRecord
from mphe.scheme import sealing
from mphe.scheme.rlwe import CollectiveKey
from mphe.scheme.sharing import sharing_of
from mphe.wire.messages import (
    Commit,
    Commitments,
    DecryptionShare,
    Join,
    JoinList,
    Message,
    Qualified,
    Ready,
    Refusal,
    Reveal,
    SealedShare,
    SessionOpen,
)


class SetupState(Enum):
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


@dataclass(frozen=True)
class Named:
    """What is known when all have joined.

    Attributes:
        joins: of the clients that are asked to commit, by index.
        name: of the session, before its key exists.
        crs_seed: seed of the common reference polynomials.
    """

    joins: tuple[Join, ...]
    name: bytes
    crs_seed: bytes


@dataclass(frozen=True)
class MadeKey:
    """What is known when all have revealed.

    Attributes:
        reveals: of the qualified set, by index.
        key: the collective public key.
        transcript: T.
    """

    reveals: tuple[Reveal, ...]
    key: CollectiveKey
    transcript: bytes

    @property
    def qualified(self) -> tuple[int, ...]:
        """Q."""
        return tuple(message.reveal.index for message in self.reveals)


# A stage is what the server knows in a state, and the answers that it collects there, by sender.


@dataclass(frozen=True)
class Joining:
    """Nothing is known."""

    answers: dict[int, Join] = field(default_factory=dict)


@dataclass(frozen=True)
class Committing:
    """The session has a name."""

    session: Named
    answers: dict[int, Commit] = field(default_factory=dict)


@dataclass(frozen=True)
class Revealing:
    """The commitments are listed."""

    session: Named
    commits: tuple[Commit, ...]
    answers: dict[int, Reveal] = field(default_factory=dict)


@dataclass(frozen=True)
class Readying:
    """The key exists."""

    session: Named
    commits: tuple[Commit, ...]
    made: MadeKey
    answers: dict[int, Ready] = field(default_factory=dict)


@dataclass(frozen=True)
class Confirming(Readying):
    """The key is tried out by those who are ready."""

    trials: Trials = field(default_factory=Trials)


Stage = Joining | Committing | Revealing | Readying


@dataclass(frozen=True)
class Readiness:
    """Who is ready, and what it said."""

    index: int
    ready: Ready


@dataclass(frozen=True)
class SetupRecord:
    """`SetupServer` between two messages: what was said so far, by the index of who said it.

    The last kind that is there are the answers of the state, those before it the ones that counted.
    Names and the key follow from them. When the set-up is over nothing of it is kept but that.

    Attributes:
        state: value of `SetupState`.
        joins, commits, reveals, readiness: what was said.
        trials: how far the confirmation has come, one or none.
        gone: clients that have lost their place.
        admitted: clients that joined since.
    """

    state: str
    joins: tuple[Join, ...] = ()
    commits: tuple[Commit, ...] = ()
    reveals: tuple[Reveal, ...] = ()
    readiness: tuple[Readiness, ...] = ()
    trials: tuple[TrialsRecord, ...] = ()
    gone: tuple[int, ...] = ()
    admitted: tuple[int, ...] = ()


A = TypeVar("A")
K = TypeVar("K", Joining, Committing, Revealing, Readying, Confirming)


def _by_index(answers: Mapping[int, A]) -> tuple[A, ...]:
    return tuple(answers[index] for index in sorted(answers))


def _read_said(said: Sequence[A], indices: Sequence[int], asked: set[int]) -> dict[int, A]:
    """Return what was said by who said it; EncodingError unless sorted, and of who was asked."""
    if not kept.read_indices(indices) <= asked:
        raise EncodingError("something was said by a client that was not asked")
    return dict(zip(indices, said, strict=True))


class SetupServer(Machine[SetupState]):
    """Collects each stage from all who are left, then moves on."""

    ACCEPTS: ClassVar[Accepts] = {
        SetupState.JOINING: {Join},
        SetupState.COMMITTING: {Commit, Join},
        SetupState.REVEALING: {Reveal, Join},
        SetupState.READYING: {Ready, Join},
        SetupState.CONFIRMING: {DecryptionShare, Refusal, Join},
        SetupState.OPEN: set(),
        SetupState.FAILED: set(),
    }
    MOVES: ClassVar[Moves] = {
        SetupState.JOINING: {"complete": SetupState.COMMITTING, "fail": SetupState.FAILED},
        SetupState.COMMITTING: {"complete": SetupState.REVEALING, "fail": SetupState.FAILED},
        SetupState.REVEALING: {"complete": SetupState.READYING, "fail": SetupState.FAILED},
        SetupState.READYING: {"complete": SetupState.CONFIRMING, "fail": SetupState.FAILED},
        SetupState.CONFIRMING: {"complete": SetupState.OPEN, "fail": SetupState.FAILED},
        SetupState.OPEN: {},
        SetupState.FAILED: {},
    }

    def __init__(self, plan: Plan, identities: setup.Identities) -> None:
        """Wait for every client on the roster.

        Args:
            plan: the same for all parties.
            identities: Ed25519 public keys of all clients.
        """
        super().__init__(SetupState.JOINING)
        self.plan = plan
        self.ring = Ring(plan.threshold.ring)
        self._sharing = sharing_of(plan.session, self.ring)
        self._identities = identities
        self._epoch = setup.epoch_parts(plan, identities)
        self._everybody = frozenset(range(1, plan.session.num_clients + 1))
        self._stage: Stage = Joining()
        self._waiting: set[int] = set(self._everybody)
        self._gone: set[int] = set()
        self._admitted: set[int] = set()
        # Follow from the stage, and are made once: nothing in them has to be kept.
        self._reader: KeyShareReader | None = None
        self._confirmation: Confirmation | None = None
        self._handlers = {
            Join: self._on_join,
            Commit: self._on_commit,
            Reveal: self._on_reveal,
            Ready: self._on_ready,
            DecryptionShare: self._on_share,
            Refusal: self._on_refusal,
        }
        self._next: dict[SetupState, Callable[[], list[Output]]] = {
            SetupState.JOINING: self._send_roster,
            SetupState.COMMITTING: self._send_commitments,
            SetupState.REVEALING: self._send_qualified,
            SetupState.READYING: self._start_confirmation,
            SetupState.CONFIRMING: self._conclude,
        }

    # -- what is kept --------------------------------------------------------------------------

    def record(self) -> SetupRecord:
        """Return what is to be kept."""
        over = self.state not in self._next
        said = SetupRecord(self.state.value) if over else self._said(self._stage)
        gone, admitted = map(kept.write_indices, (self._gone, self._admitted))
        return replace(said, gone=gone, admitted=admitted)

    def _said(self, stage: Stage) -> SetupRecord:
        """Return what led to a stage, and what was answered in it."""
        said = SetupRecord(self.state.value)
        if isinstance(stage, Joining):
            return replace(said, joins=_by_index(stage.answers))
        said = replace(said, joins=stage.session.joins)
        if isinstance(stage, Committing):
            return replace(said, commits=_by_index(stage.answers))
        said = replace(said, commits=stage.commits)
        if isinstance(stage, Revealing):
            return replace(said, reveals=_by_index(stage.answers))
        ready = tuple(Readiness(index, stage.answers[index]) for index in sorted(stage.answers))
        trials = (self._trying().record(),) if isinstance(stage, Confirming) else ()
        return replace(said, reveals=stage.made.reveals, readiness=ready, trials=trials)

    def resume(self, record: SetupRecord) -> None:
        """Take over what was kept; what follows from it is computed, not checked again.

        Raises:
            EncodingError: it makes no sense.
        """
        clients = self.plan.session.num_clients
        self.state = kept.read_state(SetupState, record.state)
        self._gone = kept.read_indices(record.gone, clients)
        self._admitted = kept.read_indices(record.admitted, clients)
        self._waiting = set()
        if self.state in self._next:
            self._stage, asked = self._stage_of(record)
            if self.state is SetupState.CONFIRMING:
                self._waiting = self._resume_trials(record)
            elif self._everybody - self._gone <= asked:
                self._waiting = asked - self._gone - set(self._stage.answers)
            if not self._waiting:
                raise EncodingError("a set-up that is not over waits for nobody")

    def _stage_of(self, record: SetupRecord) -> tuple[Stage, set[int]]:
        """Return the stage that a record leads to, and who is asked in it."""
        everybody = set(self._everybody)
        joins = _read_said(record.joins, [join.index for join in record.joins], everybody)
        if self.state is SetupState.JOINING:
            return Joining(joins), everybody
        session = self._name(record.joins)
        commits = _read_said(record.commits, [item.index for item in record.commits], set(joins))
        if self.state is SetupState.COMMITTING:
            return Committing(session, commits), set(joins)
        dealers = [item.reveal.index for item in record.reveals]
        reveals = _read_said(record.reveals, dealers, set(commits))
        if self.state is SetupState.REVEALING:
            return Revealing(session, record.commits, reveals), set(commits)
        ready = _read_said(
            [item.ready for item in record.readiness],
            [item.index for item in record.readiness],
            set(reveals),
        )
        kind = Confirming if self.state is SetupState.CONFIRMING else Readying
        made = self._make_key(session, record.commits, record.reveals)
        return kind(session, record.commits, made, ready), set(reveals)

    def _resume_trials(self, record: SetupRecord) -> set[int]:
        """Take over how far the confirmation has come; return whose answers are missing."""
        if len(record.trials) != 1:
            raise EncodingError("a confirmation without the sets that it tries")
        confirmation = self._trying()
        confirmation.resume(record.trials[0])
        return confirmation.waiting()

    # -- from outside --------------------------------------------------------------------------

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take one message of a client that is still in the set-up, or comes after it."""
        after = isinstance(message, Join) and self.state is not SetupState.JOINING
        if sender not in self._everybody or (sender in self._gone and not after):
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
        stage = self._stage
        return self.state, stage.trials.attempt if isinstance(stage, Confirming) else 0

    def _drop(self, peers: set[int]) -> list[Output]:
        if self.state not in self._next:
            return []
        self._gone |= peers & self._everybody
        self._waiting -= peers
        if self.state is SetupState.CONFIRMING:
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
        left = self._taking_part()
        threshold, needed = self.plan.session.threshold, self._sharing.min_members
        if len(self._sharing.holders(left)) >= threshold and len(left) >= needed:
            return []
        return self._fail(f"{len(left)} clients are left, {max(needed, threshold)} are needed")

    def _taking_part(self) -> set[int]:
        """Return the clients that are in the key so far."""
        answered = set(self._stage.answers)
        # What was revealed is in the key, whoever vanishes afterwards.
        return answered if isinstance(self._stage, Revealing) else answered - self._gone

    def _at(self, kind: type[K]) -> K:
        """Return the stage, which is of this kind in the state that the caller belongs to."""
        if not isinstance(self._stage, kind):
            raise LocalProtocolError(f"the set-up is not {kind.__name__.lower()} ({self.state})")
        return self._stage

    def _fail(self, reason: str, culprits: Iterable[int] = ()) -> list[Output]:
        missing = (self._everybody - self._taking_part()) | set(culprits)
        self._move("fail")
        self._waiting = set()
        return [SetupAbandoned(SetupFailed(reason, missing))]

    def _enter(self, stage: Stage, waiting: Iterable[int]) -> None:
        self._move("complete")
        self._stage = stage
        self._waiting = set(waiting) - self._gone

    # -- joining, committing, revealing ----------------------------------------------------------

    def _on_join(self, sender: int, join: Join) -> list[Output]:
        stage = self._stage
        joined = stage.answers if isinstance(stage, Joining) else self._joined() - self._gone
        self._own(sender, join.index, joined)
        setup.check_join(self._epoch, self._identities, join, sender)
        if not isinstance(stage, Joining):
            self._admitted.add(sender)
            return []
        stage.answers[sender] = join
        return self._arrived(sender)

    def _joined(self) -> set[int]:
        """Return who was asked to commit."""
        stage = self._stage
        return set() if isinstance(stage, Joining) else {join.index for join in stage.session.joins}

    def _own(self, sender: int, index: int, collected: Container[int]) -> None:
        """Raise unless a client speaks for itself, and for the first time in this stage."""
        if index != sender:
            raise UnexpectedSender(sender, f"it speaks for client {index}")
        if sender in collected:
            raise DuplicateMessage(sender, "it sent this before")

    def _send_roster(self) -> list[Output]:
        answers = self._at(Joining).answers
        joins = tuple(answers[index] for index in sorted(self._taking_part()))
        self._enter(Committing(self._name(joins)), (join.index for join in joins))
        roster = JoinList(self.plan.digest, joins)
        return [Send(join.index, roster) for join in joins]

    def _name(self, joins: tuple[Join, ...]) -> Named:
        """Return what follows from who joined."""
        digest = setup.joins_digest(self._identities, joins)
        name = setup.session_name(self._epoch, digest)
        return Named(joins, name, setup.reference_seed(digest))

    def _on_commit(self, sender: int, commit: Commit) -> list[Output]:
        stage = self._at(Committing)
        self._own(sender, commit.index, stage.answers)
        setup.check_commit(self._identities, stage.session.name, commit, sender)
        stage.answers[sender] = commit
        return self._arrived(sender)

    def _send_commitments(self) -> list[Output]:
        stage, present = self._at(Committing), sorted(self._taking_part())
        commits = tuple(stage.answers[index] for index in present)
        self._enter(Revealing(stage.session, commits), present)
        return [Send(index, Commitments(commits)) for index in present]

    def _on_reveal(self, sender: int, message: Reveal) -> list[Output]:
        stage, reveal = self._at(Revealing), message.reveal
        self._own(sender, reveal.index, stage.answers)
        commitment = next(c.commitment for c in stage.commits if c.index == sender)
        setup.check_reveal(self._identities, stage.session.name, commitment, reveal, sender)
        self._check_receivers(sender, message, [commit.index for commit in stage.commits])
        self._reading(stage.session).read(reveal, sender)
        stage.answers[sender] = message
        return self._arrived(sender)

    def _reading(self, session: Named) -> KeyShareReader:
        """Return what checks each b_i."""
        if self._reader is None:
            self._reader = KeyShareReader(self.plan, self.ring, session.name, session.crs_seed)
        return self._reader

    def _check_receivers(self, sender: int, message: Reveal, committed: list[int]) -> None:
        """Raise unless there is one sealed share for each receiver that committed."""
        expected = self._sharing.receivers(sender, committed)
        if sorted(item.peer for item in message.shares) != expected:
            raise MalformedMessage(sender, "it dealt shares to the wrong clients")
        text = self.ring.wire_length(self.ring.degree) if self._sharing.deals else 0
        lengths = (text + sealing.TAG_BYTES, sealing.ENCAPSULATION_BYTES)
        if any((len(item.sealed), len(item.encapsulation)) != lengths for item in message.shares):
            raise MalformedMessage(sender, "it dealt a share of the wrong length")

    def _send_qualified(self) -> list[Output]:
        """Fix Q; send everybody its b_i, and each decryptor what was sealed to it."""
        stage = self._at(Revealing)
        reveals = _by_index(stage.answers)
        made = self._make_key(stage.session, stage.commits, reveals)
        qualified = made.qualified
        self._enter(Readying(stage.session, stage.commits, made), qualified)
        sealed: dict[int, list[SealedShare]] = {index: [] for index in qualified}
        for dealer in reveals:
            for item in dealer.shares:
                if item.peer in sealed:
                    sealed[item.peer].append(replace(item, peer=dealer.reveal.index))
        key_shares = tuple(item.reveal for item in reveals)
        return [Send(i, Qualified(key_shares, tuple(sealed[i]))) for i in qualified]

    def _make_key(
        self, session: Named, commits: tuple[Commit, ...], reveals: tuple[Reveal, ...]
    ) -> MadeKey:
        """Return what follows from what was revealed."""
        ring = self.ring
        shares = [ring.from_bytes(item.reveal.key_share, ring.degree) for item in reveals]
        key = setup.collective_key(ring, session.crs_seed, shares)
        qualified = [item.reveal.index for item in reveals]
        return MadeKey(reveals, key, setup.transcript(session.name, commits, qualified, key))

    # -- readiness and confirmation ---------------------------------------------------------------

    def _on_ready(self, sender: int, message: Ready) -> list[Output]:
        stage, identity = self._at(Readying), self._identities[sender]
        if sender in stage.answers:
            raise DuplicateMessage(sender, "it sent this before")
        if not sealing.verify(identity, message.signature, "ready", stage.made.transcript):
            raise MalformedMessage(sender, "it did not sign the session that all others signed")
        if not set(message.unopened) <= set(stage.made.qualified):
            raise MalformedMessage(sender, "it complains of a client that dealt no shares")
        stage.answers[sender] = message
        return self._arrived(sender)

    def _able(self) -> list[int]:
        """Return the clients that hold a share and are still there."""
        ready = self._at(Readying).answers
        return [
            index
            for index in self._sharing.holders(sorted(ready))
            if not ready[index].unopened and index not in self._gone
        ]

    def _start_confirmation(self) -> list[Output]:
        """Have the key tried out by those who can decrypt."""
        stage = self._at(Readying)
        if len(self._able()) < self.plan.session.threshold:
            return self._too_few()
        self._enter(Confirming(stage.session, stage.commits, stage.made, stage.answers), ())
        return self._confirm()

    def _trying(self) -> Confirmation:
        """Return what asks and judges the sets."""
        if self._confirmation is None:
            stage = self._at(Confirming)
            made = stage.made
            self._confirmation = Confirmation(self.plan, made.key, made.transcript, stage.trials)
        return self._confirmation

    def _confirm(self) -> list[Output]:
        """Ask all sets, or fail when there are too few decryptors or attempts."""
        able = self._able()
        if len(able) < self.plan.session.threshold:
            return self._too_few()
        requests = self._trying().ask(able)
        if not requests:
            return self._fail("decryptors keep vanishing while the key is confirmed")
        self._waiting = self._trying().waiting()
        return requests

    def _too_few(self) -> list[Output]:
        """Fail for want of decryptors, and name the dealers who cost some of them."""
        ready, threshold = self._at(Readying).answers, self.plan.session.threshold
        dealers = {dealer for message in ready.values() for dealer in message.unopened}
        blame = f"; shares dealt by {sorted(dealers)} did not open" if dealers else ""
        return self._fail(
            f"{len(self._able())} decryptors are left, {threshold} are needed{blame}", dealers
        )

    def _on_share(self, sender: int, message: DecryptionShare) -> list[Output]:
        transcript = self._at(Confirming).made.transcript
        setup.check_transcript(message.transcript, transcript, sender)
        confirmation = self._trying()
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
        self._waiting = self._trying().waiting()
        return [] if self._waiting else self._complete()

    def _on_refusal(self, sender: int, message: Refusal) -> list[Output]:
        transcript = self._at(Confirming).made.transcript
        setup.check_transcript(message.transcript, transcript, sender)
        if not self._trying().wanted(message.attempt):
            return []
        raise RemoteProtocolError(sender, f"it refuses to confirm the key: {message.reason[:200]}")

    def _confirm_without(self, peers: set[int]) -> list[Output]:
        """Drop the sets of lost clients; start over when one of them was in every set."""
        if self._trying().drop(peers):
            return self._shortage() or self._confirm()
        return self._await_shares()

    def _conclude(self) -> list[Output]:
        """Open the session with the decryptors whose shares give back the message."""
        confirmation = self._trying()
        confirmed = confirmation.confirmed()
        if confirmed:
            return self._open(tuple(sorted(confirmed)))
        base = confirmation.base()
        if confirmation.another_base():
            return self._confirm()
        # A dealer who was unfair to one of them, or one of them itself.
        return self._fail(
            "the key does not decrypt what it encrypts, whoever is asked beside clients "
            f"{sorted(base)}",
            base,
        )

    def _open(self, decryptors: tuple[int, ...]) -> list[Output]:
        stage, present = self._at(Confirming), sorted(self._taking_part())
        session, made = stage.session, stage.made
        welcome = admission.compose(
            session.joins, stage.commits, made.reveals, stage.answers, decryptors
        )
        public = PublicSession(
            self.plan,
            made.transcript,
            session.crs_seed,
            made.qualified,
            decryptors,
            welcome,
            tuple(sorted(self._admitted)),
            self._identities,
            made.key,
        )
        self._move("complete")
        done = SetupDone(
            public,
            missing=tuple(sorted(self._everybody.difference(present))),
            unconfirmed=tuple(i for i in self._sharing.holders(present) if i not in decryptors),
        )
        opened = SessionOpen(decryptors, welcome.vouches)
        news: list[Output] = [Send(index, opened) for index in present]
        # First of all the session can be kept: clients keep their keys as soon as it is open.
        return [done, *news, *(Send(index, welcome) for index in public.admitted)]
