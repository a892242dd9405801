"""Threshold decryption of the aggregate (docs/protocol.md, A round; Mouchet et al. 2022/780).

    h_j = λ_j·s_j·c1 + smudge_j + mask_j,   mask_j = Σ_(l in D) ±PRF(key_jl; request)
    c0 - Σ_D h_j = Δ·m + noise - Σ smudge_j

The masks cancel when all of D answer and hide everything when one does not, which is what makes
a second attempt with another D safe (Okada et al. 2025/409 recover λ·x + noise for known λ).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mphe.arithmetic.ring import Element, Integers, Limbs, Ring, Spectrum, sum_elements
from mphe.arithmetic.sampling import RandomSource, add_smudging, derive_seed, uniform
from mphe.errors import EncodingError
from mphe.plan.plan import Plan, SlotLayout
from mphe.scheme import packing
from mphe.wire.messages import UNDIVIDED, Draw

SHARE_WIDTH = 16


@dataclass(frozen=True)
class Request:
    """What a decryption is asked for; all of it enters the masks.

    Attributes:
        session: T, the session's name.
        round: 0 is the confirmation of the key.
        attempt: starts at 1.
        active: D, sorted.
        c1: the second halves of all groups' sums, block after block, as on the wire.
        contributors: U, sorted; empty in round 0.
        draw: how the contributors are split.
    """

    session: bytes
    round: int
    attempt: int
    active: tuple[int, ...]
    c1: bytes
    contributors: tuple[int, ...] = ()
    draw: Draw = UNDIVIDED

    @cached_property
    def aggregate(self) -> bytes:
        """The digest of what is decrypted, whoever does it: one a round is answered for."""
        return derive_seed(
            "aggregate",
            self.session,
            self.round.to_bytes(8, "big"),
            self.draw.number.to_bytes(4, "big"),
            self.draw.salt,
            self.draw.groups.to_bytes(4, "big"),
            _indices(self.contributors),
            self.c1,
        )

    @cached_property
    def label(self) -> bytes:
        """The digest that separates what is drawn for this request from all others."""
        attempt = self.attempt.to_bytes(8, "big")
        return derive_seed("request", self.aggregate, attempt, _indices(self.active))

    def mask_seed(self, key: bytes, group: int = 0) -> bytes:
        """Return the seed of the mask that two decryptors share for a group's only segment."""
        return derive_seed("mask", key, self.label, group.to_bytes(4, "big"), bytes(4))


def _indices(parties: Sequence[int]) -> bytes:
    return b"".join(index.to_bytes(4, "big") for index in parties)


def c1_bytes(ring: Ring, layout: SlotLayout) -> int:
    """Return the bytes of the c1 of one sum."""
    return layout.blocks * ring.wire_length(ring.degree)


def read_c1(ring: Ring, layout: SlotLayout, data: bytes) -> list[Element]:
    """Return the c1 (L, N) of every block.

    Raises:
        EncodingError: wrong length or a residue that is not below q.
    """
    width = ring.wire_length(ring.degree)
    if len(data) != layout.blocks * width:
        raise EncodingError(f"c1 has {len(data)} bytes where {layout.blocks * width} belong")
    view = memoryview(data)
    return [
        ring.from_bytes(view[start : start + width], ring.degree)
        for start in range(0, len(data), width)
    ]


def _part(ring: Ring, layout: SlotLayout, c1: bytes, group: int) -> bytes:
    """Return the c1 of one group among those of all.

    Raises:
        EncodingError: they are not so many whole ones.
    """
    size = c1_bytes(ring, layout)
    if len(c1) % size:
        raise EncodingError(f"c1 has {len(c1)} bytes where {size} belong")
    return c1[group * size : (group + 1) * size]


def scaled_share(plan: Plan, ring: Ring, additive: Element) -> Spectrum:
    """Return the transform of λ_j·s_j, or of 4·λ_j·s_j for verified aggregates.

    Args:
        plan: of the session.
        ring: the threshold ring.
        additive: λ_j·s_j for the active set, from `Sharing.additive_share`.
    """
    return ring.spectrum(ring.reduce(Limbs(additive * plan.scaling)), SHARE_WIDTH)


def gen_share(
    plan: Plan,
    ring: Ring,
    scaled: Spectrum,
    request: Request,
    mask_keys: Mapping[int, tuple[int, bytes]],
    source: RandomSource,
    group: int = 0,
) -> bytes:
    """Return h_j for every block of one group's sum, as on the wire.

    Args:
        plan: layout, smudging and dropped bytes.
        ring: the threshold ring.
        scaled: what `scaled_share` returned.
        request: what is decrypted.
        mask_keys: for each other member of D its sign and the zero-share key.
        source: of the smudging.
        group: place of the group among all.
    """
    layout = plan.threshold_layout(request.round)
    masks = [
        (sign, RandomSource(request.mask_seed(key, group))) for sign, key in mask_keys.values()
    ]
    parts = []
    for block, c1 in enumerate(read_c1(ring, layout, _part(ring, layout, request.c1, group))):
        used = layout.block_coefficients(block)
        product = ring.multiply(scaled, ring.spectrum(c1, SHARE_WIDTH))
        for sign, stream in masks:
            product += sign * uniform(stream, ring)
        answer = Limbs(np.ascontiguousarray(product[:, :used]))
        add_smudging(source, answer, plan.smudging)
        parts.append(ring.to_bytes(ring.reduce(answer), plan.dropped_share))
    return b"".join(parts)


def read_blocks(ring: Ring, layout: SlotLayout, data: bytes, dropped: int) -> list[Element]:
    """Return the used coefficients (L, n) of every block; the inverse of joining them.

    Raises:
        EncodingError: wrong length or a residue that is not below q.
    """
    expected = ring.wire_length(layout.coefficients, dropped)
    if len(data) != expected:
        raise EncodingError(f"{len(data)} bytes where {expected} belong")
    view, start, blocks = memoryview(data), 0, []
    for block in range(layout.blocks):
        used = layout.block_coefficients(block)
        end = start + ring.wire_length(used, dropped)
        blocks.append(ring.from_bytes(view[start:end], used, dropped))
        start = end
    return blocks


def read_shares(
    ring: Ring, layout: SlotLayout, data: bytes, dropped: int, groups: int
) -> list[Element]:
    """Return the blocks of the shares of so many groups, one group after the other.

    Raises:
        EncodingError: wrong length or a residue that is not below q.
    """
    size = ring.wire_length(layout.coefficients, dropped)
    if len(data) != groups * size:
        raise EncodingError(f"{len(data)} bytes where {groups * size} belong")
    return [
        block
        for start in range(0, len(data), size)
        for block in read_blocks(ring, layout, data[start : start + size], dropped)
    ]


def aggregate_shares(shares: Sequence[Sequence[Element]]) -> list[Limbs]:
    """Return Σ_D h_j (L, n) of every block."""
    return [sum_elements(blocks) for blocks in zip(*shares, strict=True)]


def finish(
    plan: Plan, ring: Ring, layout: SlotLayout, c0: Sequence[Limbs], shares: Sequence[Limbs]
) -> Integers:
    """Return the summed values (length,) of c0 - Σ h; of 4·c0 - Σ h for verified aggregates.

    Raises:
        EncodingError: bits above the last slot are set, so a share or a contribution is wrong.

    Args:
        plan: of the session.
        ring: the threshold ring.
        layout: where the values lie.
        c0: the aggregate's first halves, (L, n) a block.
        shares: what `aggregate_shares` returned.
    """
    slots = np.empty((layout.slots, layout.coefficients), np.int64)
    for block, (body, share) in enumerate(zip(c0, shares, strict=True)):
        difference = Limbs(body * plan.scaling - share)
        packing.add_half(layout, difference)
        opened = ring.reduce(difference)
        if packing.has_excess(layout, opened):
            raise EncodingError("the sum is out of range")
        values, _ = packing.unpack(layout, opened)
        slots[:, packing.block_slice(layout, block)] = values
    return packing.flatten(layout, slots)
