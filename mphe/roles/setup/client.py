"""A client's side of the key set-up.

What a client knows at each point is one frozen stage. It holds what later ones need and nothing
else: s_i is gone once its shares are dealt. A stage is plain data that can be kept as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar, TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mphe.arithmetic.ring import Element, Ring, Small
from mphe.arithmetic.sampling import RandomSource
from mphe.arithmetic.system import System
from mphe.errors import (
    EncodingError,
    LocalProtocolError,
    RemoteProtocolError,
    UnexpectedSender,
)
from mphe.plan.plan import Plan
from mphe.roles.machine import Accepts, Event, Machine, Moves, Output, Send
from mphe.roles.setup import admission, common
from mphe.roles.setup.common import SessionKeys
from mphe.scheme import rlwe, sealing
from mphe.scheme.sealing import Encapsulated, PairwiseKeys
from mphe.scheme.sharing import sharing_of
from mphe.wire.messages import (
    SERVER,
    Commit,
    Commitments,
    Join,
    JoinList,
    KeyReveal,
    Message,
    Qualified,
    Ready,
    Reveal,
    SealedShare,
    SessionOpen,
    Welcome,
)


class State(Enum):
    """Where a client stands; named after what it sent last."""

    NEW = "new"
    JOINED = "joined"
    COMMITTED = "committed"
    REVEALED = "revealed"
    READY = "ready"
    OPEN = "open"


@dataclass(frozen=True)
class New:
    """Nothing is known yet."""


@dataclass(frozen=True)
class Joined:
    """Waits for all joins. The keys are private: of X25519, and the seed of that of ML-KEM."""

    exchange_key: bytes
    encapsulation_seed: bytes
    join: Join


@dataclass(frozen=True)
class Committed:
    """Waits for all commitments. `secret` and `error` open b_i = `key_share`."""

    exchange_key: bytes
    encapsulation_seed: bytes
    joins: tuple[Join, ...]
    session: bytes
    crs_seed: bytes
    secret: bytes
    error: bytes
    key_share: bytes
    nonce: bytes
    commit: Commit


@dataclass(frozen=True)
class Revealed:
    """Waits for the qualified set.

    `own_share` is the share that this client dealt to itself, `encapsulated` what it encapsulated
    to others, which no seed brings back.
    """

    exchange_key: bytes
    encapsulation_seed: bytes
    joins: tuple[Join, ...]
    session: bytes
    crs_seed: bytes
    commits: tuple[Commit, ...]
    own_share: bytes
    encapsulated: tuple[Encapsulated, ...]


@dataclass(frozen=True)
class Keyed:
    """Holds the keys; `opened` once the server has shown that enough others hold the same."""

    keys: SessionKeys
    opened: bool = False


Stage = New | Joined | Committed | Revealed | Keyed
S = TypeVar("S", New, Joined, Committed, Revealed, Keyed)


def state_of(stage: Stage) -> State:
    """Return what a client in this stage may be sent."""
    match stage:
        case New():
            return State.NEW
        case Joined():
            return State.JOINED
        case Committed():
            return State.COMMITTED
        case Revealed():
            return State.REVEALED
        case Keyed(opened=opened):
            return State.OPEN if opened else State.READY


@dataclass(frozen=True)
class KeysReady(Event):
    """The keys exist; the confirmation follows, so the decryptor must run from now on."""

    keys: SessionKeys
    unopened: tuple[int, ...]


@dataclass(frozen=True)
class Opened(Event):
    """The server found the key confirmed; these clients decrypt."""

    decryptors: tuple[int, ...]


class SetupClient(Machine[State]):
    """Joins, commits, reveals, checks everything that the server relays, and keeps the keys."""

    ACCEPTS: ClassVar[Accepts] = {
        State.NEW: set(),
        State.JOINED: {JoinList, Welcome},
        State.COMMITTED: {Commitments},
        State.REVEALED: {Qualified},
        State.READY: {SessionOpen},
        State.OPEN: set(),
    }
    MOVES: ClassVar[Moves] = {
        State.NEW: {"join": State.JOINED},
        State.JOINED: {"commit": State.COMMITTED, "open": State.OPEN},
        State.COMMITTED: {"reveal": State.REVEALED},
        State.REVEALED: {"sign": State.READY},
        State.READY: {"open": State.OPEN},
        State.OPEN: {},
    }

    def __init__(
        self,
        index: int,
        plan: Plan,
        identity: Ed25519PrivateKey,
        identities: common.Identities,
        source: RandomSource,
        stage: Stage | None = None,
        system: System | None = None,
    ) -> None:
        """Take part from the start, or from a stage that was kept.

        Args:
            index: of this client, from 1.
            plan: the same for all parties.
            identity: signs what this client says.
            identities: public keys of all clients, not from the server.
            source: of every secret of the set-up.
            stage: where to go on.
            system: encapsulates; by default that of this machine.
        """
        self.stage: Stage = stage or New()
        super().__init__(state_of(self.stage))
        self.index = index
        self.plan = plan
        self.ring = Ring(plan.threshold.ring)
        self.identity = identity
        self._sharing = sharing_of(plan.session, self.ring)
        self._identities = identities
        self._epoch = common.epoch_parts(plan, identities)
        self._source = source
        self._system = system or System()
        self._handlers = {
            JoinList: self._on_joins,
            Commitments: self._on_commitments,
            Qualified: self._on_qualified,
            SessionOpen: self._on_open,
            Welcome: self._on_welcome,
        }

    @property
    def keys(self) -> SessionKeys | None:
        """The keys of the session, as soon as there are any."""
        return self.stage.keys if isinstance(self.stage, Keyed) else None

    def start(self) -> list[Output]:
        """Return the signed join."""
        self._move("join")
        pairwise = PairwiseKeys.generate(self.index, self._source)
        entropy = self._source.bytes(common.ENTROPY_BYTES)
        public = pairwise.encapsulation_key
        unsigned = Join(self.index, pairwise.public, entropy, b"", encapsulation_key=public)
        parts = common.join_parts(self._epoch, unsigned)
        join = replace(unsigned, signature=sealing.sign(self.identity, "join", *parts))
        self.stage = Joined(pairwise.private, pairwise.seed, join)
        return [Send(SERVER, join)]

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take one message of the server."""
        if sender != SERVER:
            raise UnexpectedSender(sender, "only the server speaks to a client")
        return super().receive(sender, message)

    def _at(self, kind: type[S]) -> S:
        """Return the present stage, which the table says to be of this kind."""
        if not isinstance(self.stage, kind):
            raise LocalProtocolError(f"this client is in no stage {kind.__name__}")
        return self.stage

    def _on_joins(self, sender: int, message: JoinList) -> list[Output]:
        """Check all joins, derive the session, commit to a fresh b_i."""
        stage = self._at(Joined)
        common.check_epoch(message.epoch, sender)
        if message.parameters != self.plan.digest:
            raise RemoteProtocolError(sender, "the server uses other parameters than this client")
        common.require_ascending([join.index for join in message.joins], "the list of joins")
        for join in message.joins:
            common.check_join(self._epoch, self._identities, join, sender)
        if stage.join not in message.joins:
            raise RemoteProtocolError(sender, "the list lacks or alters this client's join")
        joined = common.joins_digest(self._identities, message.joins)
        session = common.session_name(self._epoch, joined)
        crs_seed = common.reference_seed(joined)
        reference = rlwe.common_reference(self.ring, crs_seed)
        share = rlwe.gen_share(self.ring, reference, self._source)
        nonce = self._source.bytes(common.NONCE_BYTES)
        public = self.ring.to_bytes(share.public)
        commitment = common.commitment_of(session, self.index, nonce, public)
        unsigned = Commit(self.index, commitment, b"")
        parts = common.commit_parts(session, unsigned)
        commit = replace(unsigned, signature=sealing.sign(self.identity, "commit", *parts))
        secret, error = (half.astype(np.int8).tobytes() for half in (share.secret, share.error))
        self.stage = Committed(
            exchange_key=stage.exchange_key,
            encapsulation_seed=stage.encapsulation_seed,
            joins=message.joins,
            session=session,
            crs_seed=crs_seed,
            secret=secret,
            error=error,
            key_share=public,
            nonce=nonce,
            commit=commit,
        )
        self._move("commit")
        return [Send(SERVER, commit)]

    def _reader(self, stage: Committed | Revealed) -> common.KeyShareReader:
        return common.KeyShareReader(self.plan, self.ring, stage.session, stage.crs_seed)

    def _on_commitments(self, sender: int, message: Commitments) -> list[Output]:
        """Hold the complete list, then reveal b_i and deal the shares of s_i."""
        stage = self._at(Committed)
        indices = [commit.index for commit in message.commits]
        common.require_ascending(indices, "the list of commitments")
        if not set(indices) <= {join.index for join in stage.joins}:
            raise RemoteProtocolError(sender, "a commitment of a client that did not join")
        for commit in message.commits:
            common.check_commit(self._identities, stage.session, commit, sender)
        if stage.commit not in message.commits:
            raise RemoteProtocolError(sender, "the list lacks or alters this client's commitment")
        share = self._key_share(stage)
        own_share, shares, encapsulated = self._deal(stage, share, indices)
        proof = self._reader(stage).prove(self.index, stage.nonce, share, self._source)
        unsigned = KeyReveal(self.index, stage.key_share, stage.nonce, b"", proof)
        parts = common.reveal_parts(stage.session, unsigned)
        reveal = replace(unsigned, signature=sealing.sign(self.identity, "reveal", *parts))
        self.stage = Revealed(
            exchange_key=stage.exchange_key,
            encapsulation_seed=stage.encapsulation_seed,
            joins=stage.joins,
            session=stage.session,
            crs_seed=stage.crs_seed,
            commits=message.commits,
            own_share=b"" if own_share is None else self.ring.to_bytes(own_share),
            encapsulated=encapsulated,
        )
        self._move("reveal")
        return [Send(SERVER, Reveal(reveal, shares))]

    def _key_share(self, stage: Committed) -> rlwe.KeyShare:
        """Return s_i, e_i and b_i as they were drawn."""
        secret, error = (
            Small(np.frombuffer(half, np.int8).astype(np.int64))
            for half in (stage.secret, stage.error)
        )
        public = self.ring.from_bytes(stage.key_share, self.ring.degree)
        return rlwe.KeyShare(rlwe.Opening(secret, error), public)

    def _deal(
        self, stage: Committed, share: rlwe.KeyShare, committed: Sequence[int]
    ) -> tuple[Element | None, tuple[SealedShare, ...], tuple[Encapsulated, ...]]:
        """Return what this client keeps of s_i, if anything, and a sealed share a receiver.

        Last, what it encapsulated to those with whom it is the one to make the key of the masks.
        """
        secret = self.ring.from_small(share.secret)
        shares = self._sharing.deal(self.index, secret, committed, self._source)
        joins, pairwise = {join.index: join for join in stage.joins}, self._pairwise(stage)
        sealed, encapsulated = [], []
        for receiver in self._sharing.receivers(self.index, committed):
            public = joins[receiver].encapsulation_key
            shared, ciphertext = sealing.encapsulate(self._system, receiver, public)
            text = self._seal(stage, pairwise, shares.get(receiver), shared)
            sealed.append(SealedShare(receiver, text, ciphertext))
            encapsulated += [shared] if receiver > self.index else []
        return shares.get(self.index), tuple(sealed), tuple(encapsulated)

    def _seal(
        self,
        stage: Committed,
        pairwise: PairwiseKeys,
        share: Element | None,
        shared: Encapsulated,
    ) -> bytes:
        """Return a share sealed to one receiver; nothing, where each keeps its own secret."""
        text = b"" if share is None else self.ring.to_bytes(share)
        peer = _exchange_keys(stage.joins)[shared.peer]
        return pairwise.seal(peer, stage.session, text, shared)

    def _pairwise(self, stage: Committed | Revealed) -> PairwiseKeys:
        return PairwiseKeys(self.index, stage.exchange_key, stage.encapsulation_seed)

    def _on_qualified(self, sender: int, message: Qualified) -> list[Output]:
        """Check every b_i, add them up, open the shares, sign T."""
        stage = self._at(Revealed)
        qualified = tuple(reveal.index for reveal in message.reveals)
        common.require_ascending(qualified, "the qualified set")
        if self.index not in qualified:
            raise RemoteProtocolError(sender, "the server left this client out of the key")
        common.check_enough(self._sharing, self.plan.session.threshold, qualified)
        commitments = {commit.index: commit.commitment for commit in stage.commits}
        if not set(qualified) <= set(commitments):
            raise RemoteProtocolError(sender, "the key has a part that nobody committed to")
        for reveal in message.reveals:
            commitment = commitments[reveal.index]
            common.check_reveal(self._identities, stage.session, commitment, reveal, sender)
        reader = self._reader(stage)
        key_shares = [reader.read(reveal, sender) for reveal in message.reveals]
        key = common.collective_key(self.ring, stage.crs_seed, key_shares)
        name = common.transcript(stage.session, stage.commits, qualified, key)
        share, unopened, mask_keys = self._collect(stage, qualified, message.shares, name)
        keys = SessionKeys(
            index=self.index,
            plan=self.plan,
            transcript=name,
            crs_seed=stage.crs_seed,
            qualified=qualified,
            key=key,
            share=share,
            mask_keys=mask_keys,
            identities=self._identities,
        )
        signature = sealing.sign(self.identity, "ready", name)
        self.stage = Keyed(keys)
        self._move("sign")
        return [KeysReady(keys, unopened), Send(SERVER, Ready(signature, unopened))]

    def _collect(
        self,
        stage: Revealed,
        qualified: Sequence[int],
        sealed: Sequence[SealedShare],
        name: bytes,
    ) -> tuple[Element | None, tuple[int, ...], dict[int, bytes]]:
        """Return this client's share of s, or None with the dealers whose shares did not open.

        Last, its mask keys: what it encapsulated itself makes those with higher indices.
        """
        if not stage.own_share:
            return None, (), {}
        pairwise, peers = self._pairwise(stage), _exchange_keys(stage.joins)
        received = {item.peer: item for item in sealed}
        makers = {shared.peer: shared for shared in stage.encapsulated}
        shares, unopened = [self.ring.from_bytes(stage.own_share, self.ring.degree)], []
        for dealer in self._sharing.dealers(self.index, qualified):
            item = received.get(dealer, SealedShare(dealer, b"", b""))
            try:
                shared = pairwise.decapsulate(dealer, item.encapsulation)
                text = pairwise.open(peers[dealer], stage.session, item.sealed, shared)
                shares += self._read_share(text)
            except EncodingError:
                unopened.append(dealer)
            else:
                makers.setdefault(dealer, shared)
        if unopened:
            return None, tuple(unopened), {}
        mask_keys = {
            peer: pairwise.zero_share_key(peers[peer], name, makers[peer])
            for peer in self._sharing.holders(qualified)
            if peer != self.index
        }
        return self._sharing.aggregate(shares), (), mask_keys

    def _read_share(self, text: bytes) -> list[Element]:
        """Return the share that was sealed, if one is dealt at all."""
        if self._sharing.deals:
            return [self.ring.from_bytes(text, self.ring.degree)]
        if text:
            raise EncodingError("a share where each client keeps its own secret")
        return []

    def _on_welcome(self, _: int, message: Welcome) -> list[Output]:
        """Contribute to a session that was set up without this client."""
        keys = admission.admit(self.plan, self._identities, self.index, message)
        self.stage = Keyed(keys, opened=True)
        self._move("open")
        return [KeysReady(keys, ()), Opened(message.decryptors)]

    def _on_open(self, _: int, message: SessionOpen) -> list[Output]:
        """Make sure that enough others hold the same key and the same T."""
        keys, needed = self._at(Keyed).keys, self.plan.session.threshold
        common.check_vouches(
            self._identities, keys.qualified, message.vouches, keys.transcript, needed
        )
        self.stage = Keyed(keys, opened=True)
        self._move("open")
        return [Opened(message.decryptors)]


def _exchange_keys(joins: Sequence[Join]) -> dict[int, bytes]:
    """Return the public X25519 key of each client that joined."""
    return {join.index: join.exchange_key for join in joins}
