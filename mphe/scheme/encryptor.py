"""Encryption of one update under the session's keys (docs/protocol.md, A round)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from mphe.arithmetic.noise import KEY_PAIRS
from mphe.arithmetic.ring import Ring, leading
from mphe.arithmetic.sampling import SEED_BYTES, RandomSource
from mphe.errors import EncodingError
from mphe.plan.plan import Plan
from mphe.scheme import packing
from mphe.scheme.onetime import OneTimeCipher
from mphe.scheme.packing import BlockMap
from mphe.scheme.rlwe import CollectiveKey, Prepared


@dataclass(frozen=True)
class Payload:
    """The encrypted parts of a contribution, as on the wire.

    Attributes:
        c0, c1, body: the parts.
        proof: where one is due.
        round: that the proof is bound to; 0 for any.
    """

    c0: bytes
    c1: bytes
    body: bytes
    proof: bytes = b""
    round: int = 0


class Cipher(Protocol):
    """What turns an update into a payload; `Encryptor`, or nothing at all for comparison."""

    def encrypt(self, values: NDArray[Any], source: RandomSource) -> Payload:
        """Return the payload of one update."""


class Encryptor:
    """Encrypts update vectors, in hybrid or direct mode; keeps no state between rounds."""

    def __init__(
        self, plan: Plan, key: CollectiveKey, crs_seed: bytes, blocks: BlockMap = map
    ) -> None:
        """Prepare the one-time cipher where the plan has one; `blocks` computes its blocks."""
        self.plan = plan
        self.ring = key.ring
        self._key = key
        self._blocks = blocks
        self._cipher = OneTimeCipher(plan, crs_seed) if plan.payload else None

    def prepare(self, source: RandomSource) -> tuple[Prepared, ...]:
        """Return the c1 of every block with what is needed to complete it, once."""
        return tuple(self._key.prepare(source) for _ in range(self.plan.threshold.blocks))

    def encrypt(
        self, values: NDArray[Any], source: RandomSource, prepared: tuple[Prepared, ...] = ()
    ) -> Payload:
        """Return the payload of one update.

        Args:
            values: integers (length,) in [0, 2^value_bits).
            source: of every key and error of this contribution.
            prepared: what `prepare` returned, never used before; by default it is made now.

        Raises:
            EncodingError: a value is out of range, or there are too few or too many.
        """
        _check_range(values, self.plan.session.value_bits)
        prepared = prepared or self.prepare(source)
        if self._cipher is None:
            c0 = self._under_collective_key(values, prepared, source)
            return Payload(c0, wire_c1(self.ring, prepared), b"")
        cipher, layout = self._cipher, self._cipher.layout
        key = cipher.gen_key(source)
        transform = cipher.prepare(key)
        # A stream for each block: the bytes do not depend on which block is computed when.
        streams = [RandomSource(source.bytes(SEED_BYTES)) for _ in range(layout.blocks)]

        def encrypt_block(block: int) -> bytes:
            part = packing.arrange_block(layout, values, block)
            body = cipher.encrypt_block(block, transform, part, streams[block])
            return cipher.ring.to_bytes(body, self.plan.dropped_body)

        bodies = b"".join(self._blocks(encrypt_block, range(layout.blocks)))
        c0 = self._under_collective_key(key + KEY_PAIRS, prepared, source)
        return Payload(c0, wire_c1(self.ring, prepared), bodies)

    def _under_collective_key(
        self, values: NDArray[Any], prepared: tuple[Prepared, ...], source: RandomSource
    ) -> bytes:
        """Return c0 of all blocks, each with a fresh e0."""
        layout = self.plan.encryption_layout(1)
        slots = packing.arrange(layout, values)
        parts = []
        for block, half in enumerate(prepared):
            packed = packing.pack(layout, slots[:, packing.block_slice(layout, block)])
            c0 = self._key.complete(half, packed, source)
            used = layout.block_coefficients(block)
            parts.append(self.ring.to_bytes(leading(c0, used), self.plan.dropped_c0))
        return b"".join(parts)


def wire_c1(ring: Ring, prepared: tuple[Prepared, ...]) -> bytes:
    """Return the c1 of all blocks as on the wire."""
    return b"".join(ring.to_bytes(half.c1) for half in prepared)


def _check_range(values: NDArray[Any], bits: int) -> None:
    """Raise EncodingError unless every value fits its slot: one that does not spoils another."""
    if values.size and not 0 <= values.min() <= values.max() < 1 << bits:
        raise EncodingError(f"values must lie in [0, 2^{bits}); quantise the update first")
