"""What lets a decryptor check the aggregate itself (docs/protocol.md, Verified aggregates).

A contributor signs (T, round, draw, digest of the model it saw, pledges, segment, digest of its c1)
and proves that its c1 is well-formed, bound to the same. Pledges name the c1 of a round before
anybody has shown one, so none can be made from another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mphe.arithmetic.ring import Element, Limbs, Ring
from mphe.arithmetic.sampling import RandomSource, derive_seed
from mphe.errors import EncodingError
from mphe.plan.plan import Plan
from mphe.roles.setup.common import Identities, long_number, number
from mphe.scheme import decryption, partition, sealing
from mphe.scheme.proof import ShortnessProof
from mphe.scheme.rlwe import CollectiveKey, Prepared
from mphe.wire.messages import UNDIVIDED, DecryptionRequest, Draw, Evidence, Pledge

DIGEST_BYTES = 32
SEGMENT = 0
"""An update comes in one piece."""


def c1_digest(session: bytes, c1: bytes) -> bytes:
    """Return what a pledge says of a c1.

    Not the round: what is pledged is listed once, in whatever round comes next, and the signature
    on that list names it.
    """
    return derive_seed("pledge", session, c1)


def model_digest(model: bytes) -> bytes:
    """Return the digest of a model as it was sent."""
    return derive_seed("model", model)


def check_pledges(pledges: Sequence[Pledge], clients: int) -> None:
    """Check a list of pledges before it is hashed: no two lists may look the same.

    Raises:
        EncodingError: not sorted and distinct, an index of no client, or no digest.
    """
    named = [pledge.index for pledge in pledges]
    if named != sorted(set(named)) or not all(1 <= index <= clients for index in named):
        raise EncodingError("the pledges are not sorted, distinct and of clients")
    if any(len(pledge.digest) != DIGEST_BYTES for pledge in pledges):
        raise EncodingError("a pledge is no digest")


@dataclass(frozen=True)
class Statement:
    """What all contributors of an aggregate must have in common.

    Attributes:
        session: T.
        round: number, from 1.
        model: digest of the model.
        pledges: who contributes which c1, by index.
        draw: how the contributors are split.
    """

    session: bytes
    round: int
    model: bytes
    pledges: tuple[Pledge, ...]
    draw: Draw = UNDIVIDED

    def digest(self) -> bytes:
        """Return the digest of all of it."""
        listed = b"".join(number(pledge.index) + pledge.digest for pledge in self.pledges)
        draw = (number(self.draw.number), self.draw.salt, number(self.draw.groups))
        round = long_number(self.round)
        return derive_seed("statement", self.session, round, *draw, self.model, listed)

    def pledged(self, index: int) -> bytes:
        """Return the digest of the c1 that a client pledged, or nothing."""
        return next((pledge.digest for pledge in self.pledges if pledge.index == index), b"")


def _context(statement: bytes, index: int, block: int) -> bytes:
    return derive_seed("contribution", statement, number(index), number(SEGMENT), number(block))


def _signed(statement: Statement, index: int, c1: bytes) -> tuple[bytes, ...]:
    """Return what the signature of a contribution covers."""
    own = (number(index), number(SEGMENT), c1_digest(statement.session, c1))
    return (statement.digest(), *own)


class Prover:
    """Proves and signs in the name of one contributor."""

    def __init__(
        self, plan: Plan, key: CollectiveKey, index: int, identity: Ed25519PrivateKey
    ) -> None:
        self._proof = ShortnessProof(Ring(plan.threshold.ring), key.reference)
        self._index = index
        self._identity = identity

    def prove(
        self, statement: Statement, prepared: Sequence[Prepared], source: RandomSource
    ) -> bytes:
        """Return the proofs of all blocks."""
        digest = statement.digest()
        return b"".join(
            self._proof.prove(part.c1, part.opening, _context(digest, self._index, block), source)
            for block, part in enumerate(prepared)
        )

    def sign(self, statement: Statement, c1: bytes) -> bytes:
        """Return the signature of a contribution."""
        parts = _signed(statement, self._index, c1)
        return sealing.sign(self._identity, "contribution", *parts)


class Verifier:
    """Checks evidence; the server does to name a liar, the decryptors since the server may lie."""

    def __init__(self, plan: Plan, key: CollectiveKey, identities: Identities) -> None:
        self._plan = plan
        self._ring = Ring(plan.threshold.ring)
        self._proof = ShortnessProof(self._ring, key.reference)
        self._identities = identities

    def check(self, statement: Statement, evidence: Evidence) -> list[Element]:
        """Return c1 of every block.

        Raises:
            EncodingError: it was not pledged, not signed, malformed, or its proof does not fit.
        """
        index, digest = evidence.index, statement.digest()
        who = f"client {index}"
        if statement.pledged(index) != c1_digest(statement.session, evidence.c1):
            raise EncodingError(f"{who} contributes another c1 than it pledged")
        identity = self._identities.get(index, b"")
        parts = _signed(statement, index, evidence.c1)
        if not sealing.verify(identity, evidence.signature, "contribution", *parts):
            raise EncodingError(
                f"{who} did not sign this contribution to this round, model and list of pledges"
            )
        blocks = decryption.read_c1(self._ring, self._plan.threshold, evidence.c1)
        length = self._proof.length
        if len(evidence.proof) != length * len(blocks):
            raise EncodingError(f"the proof of {who} has the wrong length")
        for block, c1 in enumerate(blocks):
            proof = evidence.proof[block * length : (block + 1) * length]
            self._proof.verify(c1, _context(digest, index, block), proof)
        return blocks

    def add_up(self, session: bytes, request: DecryptionRequest) -> list[bytes]:
        """Return Σ c1_i of each group of a request's evidence, as on the wire.

        Raises:
            EncodingError: evidence is missing or wrong, or the request brings a c1 of its own.
        """
        place = {i: n for n, group in enumerate(request.groups) for i in group.contributors}
        brought = any(group.c1 for group in request.groups)
        if brought or [item.index for item in request.evidence] != sorted(place):
            raise EncodingError("the evidence is not that of the contributors")
        check_pledges(request.pledges, self._plan.session.num_clients)
        # Contributors saw the digest of the salt, and signed that.
        draw = partition.announced(request.draw)
        statement = Statement(session, request.round, request.model, request.pledges, draw)
        sums = [self._zero() for _ in request.groups]
        for item in request.evidence:
            for total, c1 in zip(sums[place[item.index]], self.check(statement, item), strict=True):
                total += c1
        return [b"".join(map(self._ring.to_bytes, map(self._ring.reduce, part))) for part in sums]

    def _zero(self) -> list[Limbs]:
        return [self._ring.zero() for _ in range(self._plan.threshold.blocks)]
