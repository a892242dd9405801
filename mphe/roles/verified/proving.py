"""Proofs of contributions where only clients may lie (docs/protocol.md, Proofs of clients).

The server checks them as contributions arrive. Nobody else sees them, so nothing is pledged before
and nothing is signed: a proof is bound to T, the round, the client, its c1 and the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from mphe.arithmetic.ring import Element
from mphe.arithmetic.sampling import SEED_BYTES, RandomSource, derive_seed
from mphe.errors import EncodingError, RemoteProtocolError
from mphe.roles.setup.common import long_number, number
from mphe.roles.verified.evidence import SEGMENT
from mphe.scheme.encryptor import Encryptor, Payload
from mphe.scheme.proof import ShortnessProof
from mphe.scheme.rlwe import CollectiveKey
from mphe.wire.messages import Contribution


class Unproven(RemoteProtocolError):
    """A contribution is not what its client could prove it to be: no honest one sends that."""


def proof_context(session: bytes, round: int, index: int, c1: bytes, block: int) -> bytes:
    """Return what the proof of a block is bound to."""
    own = (long_number(round), number(index), number(SEGMENT))
    return derive_seed("client proof", session, *own, derive_seed("client c1", c1), number(block))


class ProvingEncryptor:
    """Encrypts the updates of one client, and proves each c1."""

    def __init__(
        self, index: int, session: bytes, encryptor: Encryptor, key: CollectiveKey
    ) -> None:
        """Prove in a session with the name T = `session`."""
        self._index = index
        self._session = session
        self._encryptor = encryptor
        self._proof = ShortnessProof(encryptor.ring, key.reference)

    def encrypt(self, values: NDArray[Any], source: RandomSource, round: int) -> Payload:
        """Return the payload of an update, which serves that round only."""
        prepared = self._encryptor.prepare(source)
        payload = self._encryptor.encrypt(values, source, prepared)
        proofs = []
        for block, part in enumerate(prepared):
            context = proof_context(self._session, round, self._index, payload.c1, block)
            # The masks depend on what is proven: they never answer two challenges.
            masks = RandomSource(derive_seed("proof masks", source.bytes(SEED_BYTES), context))
            proofs.append(self._proof.prove(part.c1, part.opening, context, masks))
        return replace(payload, proof=b"".join(proofs), round=round)


class ProofChecker:
    """Checks the proofs of all clients, at the server."""

    def __init__(self, session: bytes, key: CollectiveKey) -> None:
        """Check in a session with the name T = `session`."""
        self._session = session
        self._proof = ShortnessProof(key.ring, key.reference)

    def check(self, sender: int, message: Contribution, blocks: Sequence[Element]) -> None:
        """Make sure that a client knows what its c1, `blocks` in the message, is made of.

        Raises:
            Unproven: it does not.
        """
        length = self._proof.length
        try:
            if len(message.proof) != length * len(blocks):
                raise EncodingError("the proof has the wrong length")
            for block, c1 in enumerate(blocks):
                context = proof_context(self._session, message.round, sender, message.c1, block)
                self._proof.verify(
                    c1, context, message.proof[block * length : (block + 1) * length]
                )
        except EncodingError as error:
            raise Unproven(sender, f"its contribution is not proven: {error}") from error
