"""Values side by side in the coefficients of a ring, above the noise (docs/protocol.md, A round).

Value i of a vector lies in slot i // C of coefficient i % C, where C is the number of
coefficients that the layout uses, so every slot is one contiguous slice of the vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mphe.arithmetic.ring import LIMB_MASK, Element, Integers, Limbs
from mphe.arithmetic.rings import LIMB_BITS
from mphe.errors import EncodingError
from mphe.plan.plan import SlotLayout

T = TypeVar("T")


class BlockMap(Protocol):
    """How independent blocks are computed: `map`, or that of a pool of threads."""

    def __call__(self, function: Callable[[int], T], blocks: Iterable[int], /) -> Iterable[T]:
        """Return the function's result for each block, in order."""


def _check_values(layout: SlotLayout, values: NDArray[Any]) -> None:
    """Raise EncodingError unless these are as many integers as the layout carries."""
    if values.shape != (layout.length,) or not np.issubdtype(values.dtype, np.integer):
        raise EncodingError(
            f"{values.dtype} {values.shape} where integers ({layout.length},) belong"
        )


def arrange(layout: SlotLayout, values: NDArray[Any]) -> Integers:
    """Return the values (length,) as slots (slots, C), zeros behind the last one.

    Raises:
        EncodingError: wrong number of values, or no integers.
    """
    _check_values(layout, values)
    slots = np.zeros((layout.slots, layout.coefficients), np.int64)
    slots.reshape(-1)[: layout.length] = values
    return slots


def arrange_block(layout: SlotLayout, values: NDArray[Any], block: int) -> Integers:
    """Return the slots (slots, n) of one block, without a copy of the whole vector.

    Raises:
        EncodingError: wrong number of values, or no integers.
    """
    _check_values(layout, values)
    count = layout.block_coefficients(block)
    slots = np.zeros((layout.slots, count), np.int64)
    for index, slot in enumerate(slots):
        first = index * layout.coefficients + block * layout.ring.degree
        # The last slot ends where the vector does.
        part = values[first : first + count]
        slot[: part.size] = part
    return slots


def flatten(layout: SlotLayout, slots: Integers) -> Integers:
    """Return the values (length,) of slots (slots, C)."""
    return slots.reshape(-1)[: layout.length]


def block_slice(layout: SlotLayout, block: int) -> slice:
    """Return which of the layout's coefficients lie in a block."""
    start = block * layout.ring.degree
    return slice(start, start + layout.block_coefficients(block))


def pack(layout: SlotLayout, slots: Integers) -> Limbs:
    """Return limbs (L, n) with each slot (slots, n) in its place.

    Args:
        layout: where slots lie.
        slots: values in [0, 2^slot_bits).
    """
    limbs = Limbs(np.zeros((layout.ring.limbs, slots.shape[-1]), np.int64))
    for index, values in enumerate(slots):
        limb, shift = divmod(layout.noise_bits + index * layout.slot_bits, LIMB_BITS)
        room = LIMB_BITS - shift
        limbs[limb] += (values & ((1 << room) - 1)) << shift
        # A slot reaches over as many limbs as it has bits.
        rest = layout.slot_bits - room
        while rest > 0:
            limb += 1
            limbs[limb] += (values >> (layout.slot_bits - rest)) & LIMB_MASK
            rest -= LIMB_BITS
    return limbs


def unpack(layout: SlotLayout, x: Element) -> tuple[Integers, Integers]:
    """Return the slots (slots, n) and the noise (n,) of n coefficients.

    They hold noise + 2^noise_bits·payload with 2^(noise_bits - 1) added beforehand
    (`add_half`), so that the noise cannot borrow from the payload. The noise is returned only
    where it has at most 62 bits; wider noise is smudging, and nobody checks it.
    """
    slots = np.empty((layout.slots, x.shape[-1]), np.int64)
    for index in range(layout.slots):
        position = layout.noise_bits + index * layout.slot_bits
        slots[index] = _field(x, position, layout.slot_bits)
    if layout.noise_bits > 62:
        return slots, np.zeros(x.shape[-1], np.int64)
    noise = _field(x, 0, layout.noise_bits) - (1 << (layout.noise_bits - 1))
    return slots, noise


def has_excess(layout: SlotLayout, x: Element) -> bool:
    """Return whether a coefficient holds anything above the last slot.

    Honest sums never do, so this finds shares and contributions that are wrong.
    """
    limb, shift = divmod(layout.noise_bits + layout.slots * layout.slot_bits, LIMB_BITS)
    above = x[limb:]
    return bool(above.size and ((above[0] >> shift).any() or above[1:].any()))


def add_half(layout: SlotLayout, limbs: Limbs) -> None:
    """Add 2^(noise_bits - 1) to every coefficient of limbs (L, n), in place."""
    limb, shift = divmod(layout.noise_bits - 1, LIMB_BITS)
    limbs[limb] += 1 << shift


def _field(x: Element, position: int, bits: int) -> Integers:
    """Return bits position .. position + bits - 1 of every coefficient, bits ≤ 62."""
    limb, shift = divmod(position, LIMB_BITS)
    got = LIMB_BITS - shift
    value: Integers = (x[limb] >> shift) & ((1 << bits) - 1)
    while got < bits:
        limb += 1
        value |= (x[limb] & ((1 << (bits - got)) - 1)) << got
        got += LIMB_BITS
    return value
