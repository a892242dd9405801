"""What both sides of the key set-up compute: names, commitments and checks.

session = H(session, epoch, digest of joins),   crs_seed = H(crs, digest of joins)
commitment_i = H(commitment, session, i, nonce_i, b_i)
T = H(transcript, session, digest of commitments, digest of Q, 1, b);  T replaces session afterwards

H is `derive_seed`. `epoch_parts` is what names an epoch before anybody has joined it; nothing in it
but the digest of the plan and that of the identities has two values yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mphe.arithmetic.ring import Element, Ring
from mphe.arithmetic.sampling import RandomSource, derive_seed
from mphe.errors import EncodingError, RemoteProtocolError
from mphe.plan.agreement import PROTOCOL_VERSION
from mphe.plan.plan import Plan
from mphe.scheme import sealing
from mphe.scheme.proof import ShortnessProof
from mphe.scheme.rlwe import CollectiveKey, KeyShare, aggregate_shares, common_reference
from mphe.scheme.sharing import Sharing
from mphe.wire.messages import EPOCH, SERVER, Commit, Join, KeyReveal, Vouch, Welcome

ENTROPY_BYTES = 32
NONCE_BYTES = 32
FIRST_ROUND = 1
NO_FEDERATION = b""
NO_ISSUER = b""
NO_EPOCH_BEFORE = bytes(32)
KEYS = 1
"""Secrets that share one common reference polynomial."""
Identities = Mapping[int, bytes]
"""Ed25519 public key of each client, from the launcher or the roster file."""


@dataclass(frozen=True)
class PublicSession:
    """What the server holds after set-up; nothing of it is secret.

    Attributes:
        plan: parameters and layouts.
        transcript: T.
        crs_seed: seed of the common reference polynomials.
        qualified: Q.
        decryptors: those whose shares are confirmed.
        welcome: what a client that joins later needs.
        admitted: clients that joined while the key was being made; they only contribute.
        identities: public keys of all clients.
        key: the collective public key.
    """

    plan: Plan
    transcript: bytes
    crs_seed: bytes
    qualified: tuple[int, ...]
    decryptors: tuple[int, ...]
    welcome: Welcome
    admitted: tuple[int, ...]
    identities: Identities
    key: CollectiveKey


@dataclass(frozen=True)
class SessionKeys:
    """What a client holds after set-up.

    Attributes:
        index: of this client.
        plan: parameters and layouts.
        transcript: T.
        crs_seed: seed of the common reference polynomials.
        qualified: Q, whose secrets make up the collective secret.
        key: the collective public key.
        share: this client's share of s, (L, N); None when it cannot decrypt.
        mask_keys: zero-share key of every other member of Q that may decrypt; none without a share.
        identities: public keys of all clients, not from the server.
    """

    index: int
    plan: Plan
    transcript: bytes
    crs_seed: bytes
    qualified: tuple[int, ...]
    key: CollectiveKey
    share: Element | None
    mask_keys: Mapping[int, bytes]
    identities: Identities


def number(value: int) -> bytes:
    """Return an index as it enters a hash."""
    return value.to_bytes(4, "big")


def long_number(value: int) -> bytes:
    """Return a round or an attempt as it enters a hash."""
    return value.to_bytes(8, "big")


def candidates_digest(identities: Identities) -> bytes:
    """Return the digest of who may make the key, by the public keys that are not the server's."""
    listed = [(number(index), identities[index]) for index in sorted(identities)]
    return derive_seed("candidates", *(part for pair in listed for part in pair))


def epoch_parts(plan: Plan, identities: Identities) -> tuple[bytes, ...]:
    """Return what every join is signed for, and what the name of the session begins with."""
    return (
        number(PROTOCOL_VERSION),
        plan.digest,
        NO_FEDERATION,
        number(EPOCH),
        NO_EPOCH_BEFORE,
        long_number(FIRST_ROUND),
        candidates_digest(identities),
        NO_ISSUER,
    )


def join_parts(epoch: tuple[bytes, ...], join: Join) -> tuple[bytes, ...]:
    """Return what the signature of a join covers."""
    own = (number(join.index), join.exchange_key, join.encapsulation_key, join.entropy)
    return (*epoch, *own)


def commit_parts(session: bytes, commit: Commit) -> tuple[bytes, ...]:
    """Return what the signature of a commitment covers."""
    return (session, number(commit.index), commit.commitment)


def reveal_parts(session: bytes, reveal: KeyReveal) -> tuple[bytes, ...]:
    """Return what the signature of a revealed key share covers."""
    return (session, number(reveal.index), reveal.nonce, reveal.key_share, reveal.proof)


def key_share_context(session: bytes, index: int, nonce: bytes) -> bytes:
    """Return what the proof about b_i is bound to."""
    return derive_seed("key share", session, number(index), nonce)


def check_transcript(named: bytes, transcript: bytes, sender: int) -> None:
    """Raise RemoteProtocolError unless a message names T: it is meant for this key."""
    if named != transcript:
        raise RemoteProtocolError(sender, "it names another session, with another key")


def check_epoch(epoch: int, sender: int) -> None:
    """Raise RemoteProtocolError unless a message is of the only epoch."""
    if epoch != EPOCH:
        raise RemoteProtocolError(sender, f"epoch {epoch}; the key is made once, in epoch {EPOCH}")


def check_join(epoch: tuple[bytes, ...], identities: Identities, join: Join, sender: int) -> None:
    """Raise RemoteProtocolError unless this join is well-formed and signed by its client."""
    check_epoch(join.epoch, sender)
    identity = identities.get(join.index)
    if identity is None:
        raise RemoteProtocolError(sender, f"client {join.index} is on no roster")
    proper = sealing.is_exchange_key(join.exchange_key) and sealing.is_encapsulation_key(
        join.encapsulation_key
    )
    if not proper or len(join.entropy) != ENTROPY_BYTES:
        raise RemoteProtocolError(sender, f"the join of client {join.index} is malformed")
    if not sealing.verify(identity, join.signature, "join", *join_parts(epoch, join)):
        raise RemoteProtocolError(
            sender,
            f"the join of client {join.index} is not signed by it for these parameters; "
            "start all parties with the same flags, roster and version",
        )


def check_commit(identities: Identities, session: bytes, commit: Commit, sender: int) -> None:
    """Raise RemoteProtocolError unless this commitment is signed by its client."""
    identity = identities.get(commit.index, b"")
    if not sealing.verify(identity, commit.signature, "commit", *commit_parts(session, commit)):
        raise RemoteProtocolError(
            sender, f"the commitment of client {commit.index} is not signed by it"
        )


def check_reveal(
    identities: Identities, session: bytes, commitment: bytes, reveal: KeyReveal, sender: int
) -> None:
    """Raise RemoteProtocolError unless b_i is signed and the one that was committed to."""
    identity = identities.get(reveal.index, b"")
    if not sealing.verify(identity, reveal.signature, "reveal", *reveal_parts(session, reveal)):
        raise RemoteProtocolError(
            sender, f"the key share of client {reveal.index} is not signed by it"
        )
    if commitment_of(session, reveal.index, reveal.nonce, reveal.key_share) != commitment:
        raise RemoteProtocolError(
            sender, f"the key share of client {reveal.index} is not the one it committed to"
        )


def joins_digest(identities: Identities, joins: Sequence[Join]) -> bytes:
    """Return the digest of who joined, with what."""
    parts: list[bytes] = []
    for join in joins:
        parts += [number(join.index), identities[join.index], join.exchange_key]
        parts += [join.encapsulation_key, join.entropy, join.signature]
    return derive_seed("joins", *parts)


def session_name(epoch: tuple[bytes, ...], joined: bytes) -> bytes:
    """Return the name of the session before its key exists, from the digest of the joins."""
    return derive_seed("session", *epoch, joined)


def reference_seed(joined: bytes) -> bytes:
    """Return crs_seed: nobody who joined honestly can have chosen it."""
    return derive_seed("crs", joined)


def commitment_of(session: bytes, index: int, nonce: bytes, key_share: bytes) -> bytes:
    """Return the commitment to b_i."""
    return derive_seed("commitment", session, number(index), nonce, key_share)


class KeyShareReader:
    """Reads b_i, and checks where aggregates are verified that s_i and e_i are short."""

    def __init__(self, plan: Plan, ring: Ring, session: bytes, crs_seed: bytes) -> None:
        self._ring = ring
        self._session = session
        self._proof: ShortnessProof | None = None
        if plan.session.verified:
            self._proof = ShortnessProof(ring, common_reference(ring, crs_seed))

    def prove(self, index: int, nonce: bytes, share: KeyShare, source: RandomSource) -> bytes:
        """Return the proof that goes with b_i; nothing where none is asked for."""
        if self._proof is None:
            return b""
        context = key_share_context(self._session, index, nonce)
        return self._proof.prove(share.public, share.opening, context, source)

    def read(self, reveal: KeyReveal, sender: int) -> Element:
        """Return b_i (L, N).

        Raises:
            RemoteProtocolError: it is no ring element, or its proof is wrong.
        """
        try:
            key_share = self._ring.from_bytes(reveal.key_share, self._ring.degree)
            if self._proof is not None:
                context = key_share_context(self._session, reveal.index, reveal.nonce)
                self._proof.verify(key_share, context, reveal.proof)
            elif reveal.proof:
                raise EncodingError("nobody asked for a proof")
            return key_share
        except EncodingError as error:
            raise RemoteProtocolError(
                sender, f"the key share of client {reveal.index} is malformed: {error}"
            ) from error


def collective_key(ring: Ring, crs_seed: bytes, key_shares: Sequence[Element]) -> CollectiveKey:
    """Return (a, b) with b = Σ_Q b_i."""
    return CollectiveKey(ring, common_reference(ring, crs_seed), aggregate_shares(ring, key_shares))


def transcript(
    session: bytes, commits: Sequence[Commit], qualified: Sequence[int], key: CollectiveKey
) -> bytes:
    """Return T."""
    listed = [(number(commit.index), commit.commitment) for commit in commits]
    return derive_seed(
        "transcript",
        session,
        derive_seed("commitments", *(part for pair in listed for part in pair)),
        derive_seed("qualified", *map(number, qualified)),
        number(KEYS),
        key.ring.to_bytes(key.key),
    )


def check_vouches(
    identities: Identities,
    qualified: Sequence[int],
    vouches: Sequence[Vouch],
    name: bytes,
    needed: int,
) -> None:
    """Raise RemoteProtocolError (of the server) unless enough members of Q signed T."""
    require_ascending([vouch.index for vouch in vouches], "the list of signatures")
    for vouch in vouches:
        identity = identities.get(vouch.index, b"")
        if vouch.index not in qualified or not sealing.verify(
            identity, vouch.signature, "ready", name
        ):
            raise RemoteProtocolError(SERVER, f"client {vouch.index} did not sign this session")
    if len(vouches) < needed:
        raise RemoteProtocolError(
            SERVER, f"{len(vouches)} clients signed this session, {needed} are needed"
        )


def check_enough(sharing: Sharing, threshold: int, qualified: Sequence[int]) -> None:
    """Raise RemoteProtocolError unless a key of these clients can decrypt, and hides."""
    if len(sharing.holders(qualified)) < threshold or len(qualified) < sharing.min_members:
        raise RemoteProtocolError(SERVER, f"the server made a key of {len(qualified)} clients only")


def require_ascending(indices: Sequence[int], what: str) -> None:
    """Raise RemoteProtocolError (of the server) unless indices are sorted and distinct."""
    if any(left >= right for left, right in pairwise(indices)):
        raise RemoteProtocolError(SERVER, f"{what} is not sorted and distinct")
