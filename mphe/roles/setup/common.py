"""What both sides of the key set-up compute: names, commitments and checks.

session = SHA-256(parameters, identities, signed joins),   crs_seed = SHA-256(joins)
commitment_i = SHA-256(session, i, nonce_i, b_i)
T = SHA-256(session, commitment list, Q, b);  T replaces session afterwards
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mphe.arithmetic.ring import Element, Ring
from mphe.arithmetic.sampling import RandomSource, derive_seed
from mphe.errors import EncodingError, RemoteProtocolError
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import Plan
from mphe.scheme import sealing
from mphe.scheme.proof import ShortnessProof
from mphe.scheme.rlwe import CollectiveKey, KeyShare, aggregate_shares, common_reference
from mphe.scheme.sharing import Sharing
from mphe.wire.messages import SERVER, Commit, Join, KeyReveal, Vouch, Welcome

ENTROPY_BYTES = 32
NONCE_BYTES = 32
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
        mask_keys: zero-share key of every other member of Q.
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


def join_parts(parameters: SessionParameters, join: Join) -> tuple[bytes, ...]:
    """Return what the signature of a join covers."""
    return (parameters.digest(), number(join.index), join.exchange_key, join.entropy)


def commit_parts(session: bytes, commit: Commit) -> tuple[bytes, ...]:
    """Return what the signature of a commitment covers."""
    return (session, number(commit.index), commit.commitment)


def reveal_parts(session: bytes, reveal: KeyReveal) -> tuple[bytes, ...]:
    """Return what the signature of a revealed key share covers."""
    return (session, number(reveal.index), reveal.nonce, reveal.key_share, reveal.proof)


def key_share_context(session: bytes, index: int, nonce: bytes) -> bytes:
    """Return what the proof about b_i is bound to."""
    return derive_seed("key share", session, number(index), nonce)


def check_join(
    parameters: SessionParameters, identities: Identities, join: Join, sender: int
) -> None:
    """Raise RemoteProtocolError unless this join is well-formed and signed by its client."""
    identity = identities.get(join.index)
    if identity is None:
        raise RemoteProtocolError(sender, f"client {join.index} is on no roster")
    if not sealing.is_exchange_key(join.exchange_key) or len(join.entropy) != ENTROPY_BYTES:
        raise RemoteProtocolError(sender, f"the join of client {join.index} is malformed")
    if not sealing.verify(identity, join.signature, "join", *join_parts(parameters, join)):
        raise RemoteProtocolError(
            sender,
            f"the join of client {join.index} is not signed by it for these parameters; "
            "start all parties with the same flags",
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


def session_name(
    parameters: SessionParameters, identities: Identities, joins: Sequence[Join]
) -> bytes:
    """Return the name of the session before its key exists."""
    parts = [parameters.digest()]
    for join in joins:
        parts += [number(join.index), identities[join.index], join.exchange_key, join.entropy]
        parts += [join.signature]
    return derive_seed("session", *parts)


def reference_seed(joins: Sequence[Join]) -> bytes:
    """Return crs_seed: nobody who joined honestly can have chosen it."""
    return derive_seed("crs", *(join.entropy + join.exchange_key for join in joins))


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
    listed = [number(commit.index) + commit.commitment for commit in commits]
    return derive_seed(
        "transcript",
        session,
        b"".join(listed),
        b"".join(map(number, qualified)),
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
