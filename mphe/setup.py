"""What both sides of the key set-up compute: names, commitments and checks.

session = SHA-256(parameters, identities, signed joins),   crs_seed = SHA-256(joins)
commitment_i = SHA-256(session, i, nonce_i, b_i)
T = SHA-256(session, commitment list, Q, b);  T replaces session afterwards
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mphe import sealing
from mphe.errors import EncodingError, RemoteProtocolError
from mphe.messages import SERVER, Commit, Join, KeyReveal, Welcome
from mphe.parameters import Plan, SessionParameters
from mphe.ring import Limbs, Ring
from mphe.rlwe import CollectiveKey, aggregate_shares, common_reference
from mphe.sampling import derive_seed

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
        late: clients that joined while the key was being made, and are not part of it.
    """

    plan: Plan
    transcript: bytes
    crs_seed: bytes
    qualified: tuple[int, ...]
    decryptors: tuple[int, ...]
    welcome: Welcome
    late: tuple[int, ...]


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
        share: this client's share of s, canonical (L, N); None when it cannot decrypt.
        mask_keys: zero-share key of every other member of Q.
    """

    index: int
    plan: Plan
    transcript: bytes
    crs_seed: bytes
    qualified: tuple[int, ...]
    key: CollectiveKey
    share: Limbs | None
    mask_keys: Mapping[int, bytes]


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
    return (session, number(reveal.index), reveal.nonce, reveal.key_share)


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


def read_key_share(ring: Ring, reveal: KeyReveal, sender: int) -> Limbs:
    """Return b_i, canonical (L, N).

    Raises:
        RemoteProtocolError: it is no ring element.
    """
    try:
        return ring.from_bytes(reveal.key_share, ring.degree)
    except EncodingError as error:
        raise RemoteProtocolError(
            sender, f"the key share of client {reveal.index} is malformed: {error}"
        ) from error


def collective_key(ring: Ring, crs_seed: bytes, key_shares: Sequence[Limbs]) -> CollectiveKey:
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


def check_enough(parameters: SessionParameters, qualified: Sequence[int]) -> None:
    """Raise RemoteProtocolError unless a key of these clients can decrypt, and hides."""
    decryptors = [index for index in qualified if index <= parameters.decryptors]
    needed = parameters.min_contributors if parameters.robust else parameters.num_clients
    if len(decryptors) < parameters.threshold or len(qualified) < needed:
        raise RemoteProtocolError(SERVER, f"the server made a key of {len(qualified)} clients only")


def require_ascending(indices: Sequence[int], what: str) -> None:
    """Raise RemoteProtocolError (of the server) unless indices are sorted and distinct."""
    if any(left >= right for left, right in pairwise(indices)):
        raise RemoteProtocolError(SERVER, f"{what} is not sorted and distinct")
