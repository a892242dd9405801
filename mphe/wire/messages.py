"""Every message of the protocol, in the order in which a session sends them, and its number.

`transcript` is T, empty where nothing is encrypted. A field with a default that other messages of
this version never change is room for what comes later; whoever receives anything else refuses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

SERVER = 0
EPOCH = 0
"""The only epoch of a session: its key is made once."""


@dataclass(frozen=True)
class Join:
    """Client to server, then in the roster: keys of X25519 and ML-KEM-768, and entropy."""

    index: int
    exchange_key: bytes
    entropy: bytes
    signature: bytes
    epoch: int = EPOCH
    encapsulation_key: bytes = b""


@dataclass(frozen=True)
class JoinList:
    """Server to clients: all joins; everybody derives the session and the references from it."""

    parameters: bytes
    joins: tuple[Join, ...]
    epoch: int = EPOCH


@dataclass(frozen=True)
class Commit:
    """Client to server: the hash of session, index, nonce and b_i, before anybody reveals."""

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
    """A sealed Shamir share; `peer` is its receiver on the way in, its sender on the way out.

    `encapsulation` is the ciphertext of ML-KEM-768 that its key is made from. Where every client
    keeps its own secret, the sealed text is empty.
    """

    peer: int
    sealed: bytes
    encapsulation: bytes


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
    """Client to server: a signature on T, and the dealers whose shares did not open.

    A client that comes back signs T for another purpose, and names itself when it has no share.
    """

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
    """Server to a client that joins afterwards: what the key was made from, and who signed it."""

    joins: tuple[Join, ...]
    commits: tuple[Commit, ...]
    reveals: tuple[KeyReveal, ...]
    vouches: tuple[Vouch, ...]
    decryptors: tuple[int, ...]
    epoch: int = EPOCH


@dataclass(frozen=True)
class Pledge:
    """The digest of the c1 that a client contributes."""

    index: int
    digest: bytes


@dataclass(frozen=True)
class NextPledge:
    """Client to server: what it contributes next, for the list of that round."""

    pledge: Pledge
    transcript: bytes = b""


@dataclass(frozen=True)
class Draw:
    """How contributors are split into groups; the default: not at all, nothing is drawn.

    `salt` is the digest of a salt when a round starts, and the salt in a decryption request.
    """

    number: int = 0
    groups: int = 1
    salt: bytes = b""


UNDIVIDED = Draw()


@dataclass(frozen=True)
class RoundStart:
    """Server to clients: train on this model (opaque bytes); verified: who contributes what c1."""

    round: int
    model: bytes
    pledges: tuple[Pledge, ...] = ()
    transcript: bytes = b""
    draw: Draw = UNDIVIDED


@dataclass(frozen=True)
class Contribution:
    """Client to server: an encrypted update.

    `c0` and `c1` are encrypted under the collective key; `body` under a one-time key (hybrid).
    `metrics` are opaque and in clear. Verified: `proof` shows that c1 is well-formed, `signature`
    binds it to the round, the model and the pledges. `segment` is 0: an update comes in one piece.
    """

    round: int
    c0: bytes
    c1: bytes
    body: bytes
    metrics: bytes
    proof: bytes = b""
    signature: bytes = b""
    transcript: bytes = b""
    segment: int = 0


@dataclass(frozen=True)
class Evidence:
    """A contributor's c1 with its proof and signature, for the decryptors."""

    index: int
    c1: bytes
    proof: bytes
    signature: bytes


@dataclass(frozen=True)
class Group:
    """Contributors and the c1 of their sum; verified: c1 is empty."""

    contributors: tuple[int, ...]
    c1: bytes


@dataclass(frozen=True)
class DecryptionRequest:
    """Server to an active decryptor: the active set, and whose sum is to be decrypted.

    `groups` are those of the draw, always all; `asked` the places of those to be decrypted, all in
    the first attempt. Round 0 confirms the key: the one group has no contributors and no c1,
    everybody derives c1 from T. Verified: the decryptor adds up the evidence itself; `model` is the
    digest of the model that all contributors saw, `pledges` the list that they signed.
    """

    round: int
    attempt: int
    active: tuple[int, ...]
    groups: tuple[Group, ...]
    model: bytes = b""
    pledges: tuple[Pledge, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    transcript: bytes = b""
    draw: Draw = UNDIVIDED
    asked: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class DecryptionShare:
    """Decryptor to server: h_j of each group that was asked for, one after the other."""

    round: int
    attempt: int
    share: bytes
    transcript: bytes = b""


@dataclass(frozen=True)
class Refusal:
    """Decryptor to server: no share, and why.

    `answered` is the last attempt of this round that it answered, 0 for none: a server that was
    started again from an older state learns which attempts are used.
    """

    round: int
    attempt: int
    reason: str
    transcript: bytes = b""
    answered: int = 0


@dataclass(frozen=True)
class RoundEnd:
    """Server to clients: whose updates were counted; nobody's when the round was abandoned."""

    round: int
    contributors: tuple[int, ...]
    transcript: bytes = b""


@dataclass(frozen=True)
class Finish:
    """Server to clients: training is over."""

    reason: str


@dataclass(frozen=True)
class Rejection:
    """Server to a client that takes no part, and why; the connection ends with it."""

    reason: str


Message = (
    Join
    | JoinList
    | Commit
    | Commitments
    | Reveal
    | Qualified
    | Ready
    | SessionOpen
    | Welcome
    | NextPledge
    | RoundStart
    | Contribution
    | DecryptionRequest
    | DecryptionShare
    | Refusal
    | RoundEnd
    | Finish
    | Rejection
)

NUMBERS: MappingProxyType[type[Any], int] = MappingProxyType(
    {
        Join: 0,
        JoinList: 1,
        Commit: 2,
        Commitments: 3,
        Reveal: 4,
        Qualified: 5,
        Ready: 6,
        SessionOpen: 7,
        Welcome: 8,
        NextPledge: 9,
        RoundStart: 10,
        Contribution: 11,
        DecryptionRequest: 12,
        DecryptionShare: 13,
        Refusal: 14,
        RoundEnd: 15,
        Finish: 16,
        Rejection: 17,
    }
)
"""The number of each message on the wire; one that is given up is never given again."""
