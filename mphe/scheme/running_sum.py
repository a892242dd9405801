"""The sum of contributions, and what is checked before it is used (docs/protocol.md, A round)."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass

import numpy as np

from mphe.arithmetic.noise import KEY_PAIRS
from mphe.arithmetic.ring import Element, Integers, Limbs, Ring, Small
from mphe.arithmetic.rings import LIMB_BITS
from mphe.errors import EncodingError, LocalProtocolError
from mphe.plan.plan import Plan, SlotLayout
from mphe.scheme import decryption, packing
from mphe.scheme.onetime import OneTimeCipher, keys_plausible
from mphe.scheme.packing import BlockMap
from mphe.wire.messages import Contribution


@dataclass(frozen=True)
class Parsed:
    """A contribution's ring elements, (L, n) a block."""

    c0: list[Element]
    c1: list[Element]
    body: list[Element]


@dataclass(frozen=True)
class _Total:
    """The sums over all contributions, (L, n) a block."""

    c0: list[Limbs]
    c1: list[Limbs]
    body: list[Limbs]

    @classmethod
    def of(cls, first: Parsed) -> _Total:
        """Take over the arrays of the first contribution."""
        return cls([*first.c0], [*first.c1], [*first.body])

    def add(self, other: Parsed | _Total) -> None:
        """Add one more contribution, or the sum of others, in place."""
        totals = (*self.c0, *self.c1, *self.body)
        for total, block in zip(totals, (*other.c0, *other.c1, *other.body), strict=True):
            total += block


@dataclass(frozen=True)
class SumRecord:
    """`RunningSum` between two messages, as little-endian int64, limb after limb of each block."""

    c0: bytes
    c1: bytes
    body: bytes


def _write_limbs(blocks: Iterable[Limbs]) -> bytes:
    return b"".join(block.astype("<i8", copy=False).tobytes() for block in blocks)


def _read_limbs(data: bytes, limbs: int, widths: list[int], summands: int) -> list[Limbs]:
    """Read `_write_limbs`, blocks (limbs, width) of a sum of at most so many canonical elements.

    Raises:
        EncodingError: the length is wrong, or a limb is larger than such a sum's.
    """
    if len(data) != 8 * limbs * sum(widths):
        raise EncodingError(f"a sum has {len(data)} bytes where {8 * limbs * sum(widths)} belong")
    values = np.frombuffer(data, "<i8").astype(np.int64)
    if values.size and not 0 <= values.min() <= values.max() < summands << LIMB_BITS:
        raise EncodingError("a sum is larger than that of all clients")
    ends = np.cumsum([limbs * width for width in widths])
    parts = np.split(values, ends[:-1])
    return [Limbs(part.reshape(limbs, -1)) for part in parts]


def _widths(layout: SlotLayout) -> list[int]:
    """Return the coefficients of each block that carry payload."""
    return [layout.block_coefficients(block) for block in range(layout.blocks)]


class RunningSum:
    """Σ of contributions as limbs that are carried only at the end; never kept one by one."""

    def __init__(self, plan: Plan, crs_seed: bytes, blocks: BlockMap = map) -> None:
        """Prepare the readers and, in hybrid mode, the one-time cipher, which `blocks` runs."""
        self._blocks = blocks
        self.plan = plan
        self.ring = Ring(plan.threshold.ring)
        self._cipher = OneTimeCipher(plan, crs_seed) if plan.payload else None
        self._total: _Total | None = None

    def record(self) -> tuple[SumRecord, ...]:
        """Return what is to be kept: the sum, one or none."""
        if self._total is None:
            return ()
        total = self._total
        return (SumRecord(*map(_write_limbs, (total.c0, total.c1, total.body))),)

    def resume(self, records: tuple[SumRecord, ...]) -> None:
        """Take over what was kept; EncodingError when it is no such sum."""
        if len(records) > 1:
            raise EncodingError("there is more than one sum")
        for record in records:
            self._total = self._read(record)

    def _read(self, record: SumRecord) -> _Total:
        ring, layout, summands = self.ring, self.plan.threshold, self.plan.session.num_clients
        whole = [ring.degree] * layout.blocks
        body: list[Limbs] = []
        if self._cipher is not None:
            widths, limbs = _widths(self._cipher.layout), self._cipher.ring.limbs
            body = _read_limbs(record.body, limbs, widths, summands)
        elif record.body:
            raise EncodingError("direct mode has no bodies")
        return _Total(
            _read_limbs(record.c0, ring.limbs, _widths(layout), summands),
            _read_limbs(record.c1, ring.limbs, whole, summands),
            body,
        )

    def another(self) -> RunningSum:
        """Return an empty sum of the same session, which shares what was prepared."""
        other = copy(self)
        other._total = None
        return other

    def merge(self, other: RunningSum) -> None:
        """Add what another sum of the session holds, which is empty afterwards."""
        if self._total is None:
            self._total = other._total
        elif other._total is not None:
            self._total.add(other._total)
        other._total = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added yet."""
        return self._total is None

    def clear(self) -> None:
        """Forget the sum."""
        self._total = None

    def parse(self, message: Contribution) -> Parsed:
        """Return the elements of a contribution.

        Raises:
            EncodingError: a length is wrong or a residue is not below q.
        """
        plan = self.plan
        body: list[Element] = []
        if self._cipher is not None:
            body = decryption.read_blocks(
                self._cipher.ring, self._cipher.layout, message.body, plan.dropped_body
            )
        elif message.body:
            raise EncodingError("direct mode has no bodies")
        return Parsed(
            decryption.read_blocks(self.ring, plan.threshold, message.c0, plan.dropped_c0),
            decryption.read_c1(self.ring, plan.threshold, message.c1),
            body,
        )

    def add(self, parsed: Parsed) -> None:
        """Add one contribution; its arrays may be taken over."""
        if self._total is None:
            self._total = _Total.of(parsed)
        else:
            self._total.add(parsed)

    def c1(self) -> bytes:
        """Return c1 = Σ_U c1_i as on the wire."""
        blocks = self._require().c1
        return b"".join(self.ring.to_bytes(self.ring.reduce(block)) for block in blocks)

    def recover(self, shares: list[list[Element]], contributors: int) -> Integers | None:
        """Return the summed values, or None when a range check fails: something is forged."""
        total, combined = self._require(), decryption.aggregate_shares(shares)
        try:
            values = decryption.finish(
                self.plan, self.ring, self.plan.threshold, total.c0, combined
            )
            if self._cipher is not None:
                values = self._take_off(self._cipher, values, total.body, contributors)
        except EncodingError:
            return None
        largest = contributors * ((1 << self.plan.session.value_bits) - 1)
        return values if values.max() <= largest else None

    def _take_off(
        self, cipher: OneTimeCipher, offset_keys: Integers, bodies: list[Limbs], contributors: int
    ) -> Integers:
        """Return the sum under the sum of one-time keys.

        Raises:
            EncodingError: keys or errors are larger than honest ones.
        """
        key_sum = Small(offset_keys - KEY_PAIRS * contributors)
        if not keys_plausible(key_sum, contributors):
            raise EncodingError("the sum of the one-time keys is out of range")
        layout, prepared = cipher.layout, cipher.prepare(key_sum)
        slots = np.empty((layout.slots, layout.coefficients), np.int64)

        def recover_block(block: int) -> None:
            part, errors = cipher.recover_block(block, prepared, bodies[block])
            if not cipher.errors_plausible(errors, contributors):
                raise EncodingError("the errors of the bodies are out of range")
            slots[:, packing.block_slice(layout, block)] = part

        # A failure is raised when its block is asked for.
        for _ in self._blocks(recover_block, range(layout.blocks)):
            pass
        return packing.flatten(layout, slots)

    def _require(self) -> _Total:
        if self._total is None:
            raise LocalProtocolError("there is no contribution to decrypt")
        return self._total
