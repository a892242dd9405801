"""A client's side of the key set-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mphe.arithmetic.ring import Element, Ring
from mphe.arithmetic.sampling import RandomSource
from mphe.errors import EncodingError, RemoteProtocolError, UnexpectedSender
from mphe.plan.plan import Plan
from mphe.roles.machine import Accepts, Event, Machine, Moves, Output, Send
from mphe.roles.setup import admission
from mphe.roles.setup import common as setup
from mphe.roles.setup.common import SessionKeys
from mphe.scheme import rlwe, sealing
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
        identities: setup.Identities,
        source: RandomSource,
    ) -> None:
        """Draw the keys of this session.

        Args:
            index: of this client, from 1.
            plan: the same for all parties.
            identity: signs what this client says.
            identities: public keys of all clients, not from the server.
            source: of every secret of the set-up.
        """
        super().__init__(State.NEW)
        self.index = index
        self.plan = plan
        self.ring = Ring(plan.threshold.ring)
        self._sharing = sharing_of(plan.session, self.ring)
        self.identity = identity
        self._identities = identities
        self._epoch = setup.epoch_parts(plan, identities)
        self._source = source
        self._pairwise = sealing.PairwiseKeys(index, source)
        self._handlers = {
            JoinList: self._on_roster,
            Commitments: self._on_commitments,
            Qualified: self._on_qualified,
            SessionOpen: self._on_open,
            Welcome: self._on_welcome,
        }

    def start(self) -> list[Output]:
        """Return the signed join."""
        self._move("join")
        unsigned = Join(
            self.index, self._pairwise.public, self._source.bytes(setup.ENTROPY_BYTES), b""
        )
        parts = setup.join_parts(self._epoch, unsigned)
        self._join = replace(unsigned, signature=sealing.sign(self.identity, "join", *parts))
        return [Send(SERVER, self._join)]

    def receive(self, sender: int, message: Message) -> list[Output]:
        """Take one message of the server."""
        if sender != SERVER:
            raise UnexpectedSender(sender, "only the server speaks to a client")
        return super().receive(sender, message)

    def _on_roster(self, sender: int, roster: JoinList) -> list[Output]:
        """Check all joins, derive the session, commit to a fresh b_i."""
        setup.check_epoch(roster.epoch, sender)
        if roster.parameters != self.plan.digest:
            raise RemoteProtocolError(sender, "the server uses other parameters than this client")
        setup.require_ascending([join.index for join in roster.joins], "the roster")
        for join in roster.joins:
            setup.check_join(self._epoch, self._identities, join, sender)
        if self._join not in roster.joins:
            raise RemoteProtocolError(sender, "the roster lacks or alters this client's join")
        self._exchange_keys = {join.index: join.exchange_key for join in roster.joins}
        joined = setup.joins_digest(self._identities, roster.joins)
        self._session = setup.session_name(self._epoch, joined)
        self._crs_seed = setup.reference_seed(joined)
        reference = rlwe.common_reference(self.ring, self._crs_seed)
        self._key_share = rlwe.gen_share(self.ring, reference, self._source)
        self._nonce = self._source.bytes(setup.NONCE_BYTES)
        self._reader = setup.KeyShareReader(self.plan, self.ring, self._session, self._crs_seed)
        public = self.ring.to_bytes(self._key_share.public)
        commitment = setup.commitment_of(self._session, self.index, self._nonce, public)
        unsigned = Commit(self.index, commitment, b"")
        parts = setup.commit_parts(self._session, unsigned)
        signature = sealing.sign(self.identity, "commit", *parts)
        self._commit = Commit(self.index, commitment, signature)
        self._move("commit")
        return [Send(SERVER, self._commit)]

    def _on_commitments(self, sender: int, message: Commitments) -> list[Output]:
        """Hold the complete list, then reveal b_i and deal the shares of s_i."""
        indices = [commit.index for commit in message.commits]
        setup.require_ascending(indices, "the list of commitments")
        if not set(indices) <= set(self._exchange_keys):
            raise RemoteProtocolError(sender, "a commitment of a client that did not join")
        for commit in message.commits:
            setup.check_commit(self._identities, self._session, commit, sender)
        if self._commit not in message.commits:
            raise RemoteProtocolError(sender, "the list lacks or alters this client's commitment")
        shares = self._deal(indices)
        self._commits = message.commits
        public = self.ring.to_bytes(self._key_share.public)
        proof = self._reader.prove(self.index, self._nonce, self._key_share, self._source)
        unsigned = KeyReveal(self.index, public, self._nonce, b"", proof)
        parts = setup.reveal_parts(self._session, unsigned)
        signature = sealing.sign(self.identity, "reveal", *parts)
        reveal = replace(unsigned, signature=signature)
        self._move("reveal")
        return [Send(SERVER, Reveal(reveal, shares))]

    def _deal(self, committed: Sequence[int]) -> tuple[SealedShare, ...]:
        """Return a sealed share for each receiver; keep our own."""
        secret = self.ring.from_small(self._key_share.secret)
        shares = self._sharing.deal(self.index, secret, committed, self._source)
        self._own_share = shares.pop(self.index, None)
        return tuple(self._seal(receiver, share) for receiver, share in shares.items())

    def _seal(self, receiver: int, share: Element) -> SealedShare:
        text = self.ring.to_bytes(share)
        peer = self._exchange_keys[receiver]
        return SealedShare(receiver, self._pairwise.seal(receiver, peer, self._session, text))

    def _on_qualified(self, sender: int, message: Qualified) -> list[Output]:
        """Check every b_i, add them up, open the shares, sign T."""
        qualified = tuple(reveal.index for reveal in message.reveals)
        setup.require_ascending(qualified, "the qualified set")
        if self.index not in qualified:
            raise RemoteProtocolError(sender, "the server left this client out of the key")
        setup.check_enough(self._sharing, self.plan.session.threshold, qualified)
        commitments = {commit.index: commit.commitment for commit in self._commits}
        if not set(qualified) <= set(commitments):
            raise RemoteProtocolError(sender, "the key has a part that nobody committed to")
        for reveal in message.reveals:
            commitment = commitments[reveal.index]
            setup.check_reveal(self._identities, self._session, commitment, reveal, sender)
        key_shares = [self._reader.read(reveal, sender) for reveal in message.reveals]
        key = setup.collective_key(self.ring, self._crs_seed, key_shares)
        name = setup.transcript(self._session, self._commits, qualified, key)
        share, unopened = self._collect(qualified, message.shares)
        keys = SessionKeys(
            index=self.index,
            plan=self.plan,
            transcript=name,
            crs_seed=self._crs_seed,
            qualified=qualified,
            key=key,
            share=share,
            mask_keys=self._mask_keys(qualified, name),
            identities=self._identities,
        )
        self._keys = keys
        signature = sealing.sign(self.identity, "ready", name)
        self._move("sign")
        return [KeysReady(keys, unopened), Send(SERVER, Ready(signature, unopened))]

    def _collect(
        self, qualified: Sequence[int], sealed: Sequence[SealedShare]
    ) -> tuple[Element | None, tuple[int, ...]]:
        """Return this client's share of s, or None with the dealers whose shares did not open."""
        if self._own_share is None:
            return None, ()
        received = {item.peer: item.sealed for item in sealed}
        shares, unopened = [self._own_share], []
        for dealer in self._sharing.dealers(self.index, qualified):
            try:
                shares.append(self._open(dealer, received.get(dealer, b"")))
            except EncodingError:
                unopened.append(dealer)
        share = None if unopened else self._sharing.aggregate(shares)
        return share, tuple(unopened)

    def _open(self, dealer: int, sealed: bytes) -> Element:
        peer = self._exchange_keys[dealer]
        text = self._pairwise.open(dealer, peer, self._session, sealed)
        return self.ring.from_bytes(text, self.ring.degree)

    def _mask_keys(self, qualified: Sequence[int], name: bytes) -> dict[int, bytes]:
        return {
            peer: self._pairwise.zero_share_key(peer, self._exchange_keys[peer], name)
            for peer in qualified
            if peer != self.index
        }

    def _on_welcome(self, _: int, message: Welcome) -> list[Output]:
        """Contribute to a session that was set up without this client."""
        keys = admission.admit(self.plan, self._identities, self.index, message)
        self._move("open")
        return [KeysReady(keys, ()), Opened(message.decryptors)]

    def _on_open(self, _: int, message: SessionOpen) -> list[Output]:
        """Make sure that enough others hold the same key and the same T."""
        keys, needed = self._keys, self.plan.session.threshold
        setup.check_vouches(
            self._identities, keys.qualified, message.vouches, keys.transcript, needed
        )
        self._move("open")
        return [Opened(message.decryptors)]
