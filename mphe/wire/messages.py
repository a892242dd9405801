"""Every message of the protocol, in the order in which a session sends them."""

from __future__ import annotations

from dataclasses import dataclass

SERVER = 0


@dataclass(frozen=True)
class Join:
    """Client to server, then in the roster: an exchange key and entropy for this session."""

    index: int
    exchange_key: bytes
    entropy: bytes
    signature: bytes


@dataclass(frozen=True)
class Roster:
    """Server to clients: all joins; everybody derives the session and the references from it."""

    parameters: bytes
    joins: tuple[Join, ...]


@dataclass(frozen=True)
class Commit:
    """Client to server: SHA-256(session, index, nonce, b_i), before anybody reveals."""

    index: int
    commitment: bytes
    signature: bytes


@dataclass(frozen=True)
class Commitments:
    """Server to clients: the complete list of commitments."""

    commits: tuple[Commit, ...]


@dataclass(frozen=True)
class KeyReveal:
    """b_i with what proves that it was committed to, and (verified) that s_i and e_i are short."""

    index: int
    key_share: bytes
    nonce: bytes
    signature: bytes
    proof: bytes = b""


@dataclass(frozen=True)
class SealedShare:
    """A sealed Shamir share; `peer` is its receiver on the way in, its sender on the way out."""

    peer: int
    sealed: bytes


@dataclass(frozen=True)
class Reveal:
    """Client to server: b_i and a sealed share of s_i for each decryptor."""

    reveal: KeyReveal
    shares: tuple[SealedShare, ...]


@dataclass(frozen=True)
class Qualified:
    """Server to one client: the b_i of the qualified set and the shares sealed to this client."""

    reveals: tuple[KeyReveal, ...]
    shares: tuple[SealedShare, ...]


@dataclass(frozen=True)
class Ready:
    """Client to server: a signature on T, and the dealers whose shares did not open."""

    signature: bytes
    unopened: tuple[int, ...]


@dataclass(frozen=True)
class Vouch:
    """A client's signature on T, for the others."""

    index: int
    signature: bytes


@dataclass(frozen=True)
class SessionOpen:
    """Server to clients: the key is confirmed; these clients decrypt, and these signed T."""

    decryptors: tuple[int, ...]
    vouches: tuple[Vouch, ...]


@dataclass(frozen=True)
class Welcome:
    """Server to a client that joins late: what the key was made from, and who signed it."""

    joins: tuple[Join, ...]
    commits: tuple[Commit, ...]
    reveals: tuple[KeyReveal, ...]
    vouches: tuple[Vouch, ...]
    decryptors: tuple[int, ...]


@dataclass(frozen=True)
class Pledge:
    """Client to server, then in RoundStart: the digest of the c1 that it contributes next."""

    index: int
    digest: bytes


@dataclass(frozen=True)
class RoundStart:
    """Server to clients: train on this model (opaque bytes); verified: who contributes what c1."""

    round: int
    model: bytes
    pledges: tuple[Pledge, ...] = ()


@dataclass(frozen=True)
class Contribution:
    """Client to server: an encrypted update.

    `c0` and `c1` are encrypted under the collective key; `body` under a one-time key (hybrid).
    `note` is opaque and in clear. Verified: `proof` shows that c1 is well-formed, `signature`
    binds it to the round, the model and the pledges.
    """

    round: int
    c0: bytes
    c1: bytes
    body: bytes
    note: bytes
    proof: bytes = b""
    signature: bytes = b""


@dataclass(frozen=True)
class Evidence:
    """A contributor's c1 with its proof and signature, for the decryptors."""

    index: int
    c1: bytes
    proof: bytes
    signature: bytes


@dataclass(frozen=True)
class DecryptionRequest:
    """Server to an active decryptor: the aggregate's c1, its contributors and the active set.

    Round 0 confirms the key: c1 and contributors are empty, everybody derives c1 from T.
    Verified: c1 is empty and the decryptor adds up the evidence itself; `model` is the digest of
    the model that all contributors saw, `pledges` the list that they signed.
    """

    round: int
    attempt: int
    contributors: tuple[int, ...]
    active: tuple[int, ...]
    c1: bytes
    model: bytes = b""
    pledges: tuple[Pledge, ...] = ()
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class DecryptionShare:
    """Decryptor to server: h_j."""

    round: int
    attempt: int
    share: bytes


@dataclass(frozen=True)
class Refusal:
    """Decryptor to server: no share, and why."""

    round: int
    attempt: int
    reason: str


@dataclass(frozen=True)
class RoundEnd:
    """Server to clients: whose updates were counted; nobody's when the round was abandoned."""

    round: int
    contributors: tuple[int, ...]


@dataclass(frozen=True)
class Finish:
    """Server to clients: training is over."""

    reason: str


Message = (
    Join
    | Roster
    | Commit
    | Commitments
    | Reveal
    | Qualified
    | Ready
    | SessionOpen
    | Welcome
    | Pledge
    | RoundStart
    | Contribution
    | DecryptionRequest
    | DecryptionShare
    | Refusal
    | RoundEnd
    | Finish
)
