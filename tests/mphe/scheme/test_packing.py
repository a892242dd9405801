"""mphe.scheme.packing: slots come back whole, whatever the noise below them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mphe.arithmetic.ring import Element, Limbs, Ring
from mphe.arithmetic.rings import KEY_RING, RINGS
from mphe.errors import EncodingError
from mphe.plan.plan import SlotLayout
from mphe.scheme import packing
from tests.support import integers_to_element, limbs_to_integers, seeded

PROPERTY = settings(deadline=None, max_examples=150, derandomize=True)
WIDTH = 12


@st.composite
def layouts(draw: st.DrawFn) -> SlotLayout:
    """Any layout that fits its ring, with at most a few values."""
    ring = draw(st.sampled_from(RINGS))
    slot_bits = draw(st.integers(5, 40))
    noise_bits = draw(st.integers(8, min(100, ring.bits - slot_bits)))
    slots = draw(st.integers(1, (ring.bits - noise_bits) // slot_bits))
    return SlotLayout(ring, noise_bits, slot_bits, slots, draw(st.integers(1, slots * WIDTH)))


def slot_values(data: st.DataObject, layout: SlotLayout) -> NDArray[np.int64]:
    """Draw slots up to 2^slot_bits - 2, the most that the planner lets a sum be."""
    largest = (1 << layout.slot_bits) - 2
    source = seeded(data.draw(st.integers(0, 1 << 32)))
    shape = (layout.slots, layout.coefficients)
    kind = data.draw(st.sampled_from(["zero", "largest", "any"]))
    if kind == "any":
        words = source.words(layout.slots * layout.coefficients)
        return (words % np.uint64(largest + 1)).astype(np.int64).reshape(shape)
    return np.full(shape, largest if kind == "largest" else 0, np.int64)


def expected_integers(layout: SlotLayout, slots: NDArray[np.int64]) -> list[int]:
    """Return Σ slot·2^position for each coefficient."""
    positions = [layout.noise_bits + i * layout.slot_bits for i in range(layout.slots)]
    return [
        sum(int(value) << position for value, position in zip(column, positions, strict=True))
        for column in slots.T
    ]


def open_up(layout: SlotLayout, limbs: Limbs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ring = Ring(layout.ring)
    packing.add_half(layout, limbs)
    return packing.unpack(layout, ring.reduce(limbs))


@given(st.data())
@PROPERTY
def test_pack_puts_every_slot_in_its_place(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    slots = slot_values(data, layout)
    assert limbs_to_integers(packing.pack(layout, slots)) == expected_integers(layout, slots)


@given(st.data())
@PROPERTY
def test_noise_never_disturbs_a_slot(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    slots = slot_values(data, layout)
    half = 1 << (layout.noise_bits - 1)
    noise = data.draw(
        st.lists(
            st.sampled_from([-half, half - 1, 0, -1]) | st.integers(-half, half - 1),
            min_size=layout.coefficients,
            max_size=layout.coefficients,
        )
    )
    # Negative noise under a payload of zero wraps to just below q.
    values = [x + e for x, e in zip(expected_integers(layout, slots), noise, strict=True)]
    opened, found = open_up(layout, integers_to_element(Ring(layout.ring), values))
    assert np.array_equal(opened, slots)
    if layout.noise_bits <= 62:
        assert found.tolist() == noise
    else:
        assert not found.any()


@given(st.data())
@PROPERTY
def test_values_come_back_in_order(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    words = seeded(data.draw(st.integers(0, 1 << 32))).words(layout.length)
    values = (words >> np.uint64(64 - layout.slot_bits)).astype(np.int64)
    values[values == (1 << layout.slot_bits) - 1] = 0
    slots = packing.arrange(layout, values)
    assert slots.shape == (layout.slots, layout.coefficients)
    opened, _ = open_up(layout, packing.pack(layout, slots))
    assert np.array_equal(packing.flatten(layout, opened), values)


@given(st.sampled_from(RINGS), st.integers(4, 24), st.integers(2, 1 << 12), st.integers(8, 40))
@PROPERTY
def test_a_sum_of_capacity_largest_values_never_overflows(
    parameters: object, value_bits: int, capacity: int, noise_bits: int
) -> None:
    ring = next(ring for ring in RINGS if ring == parameters)
    slot_bits = value_bits + (capacity - 1).bit_length()
    layout = SlotLayout(ring, noise_bits, slot_bits, (ring.bits - noise_bits) // slot_bits, 1)
    layout = replace(layout, length=layout.slots)
    largest = (1 << value_bits) - 1
    one = packing.pack(layout, np.full((layout.slots, 1), largest, np.int64))
    opened, _ = open_up(layout, Limbs(capacity * one))
    assert opened.tolist() == [[capacity * largest]] * layout.slots


def test_a_value_that_is_one_slot_too_wide_spoils_its_neighbour() -> None:
    # The reason for every range check: packing itself does not look.
    layout = SlotLayout(KEY_RING, 8, 10, 2, 2)
    opened, _ = open_up(layout, Limbs(2 * packing.pack(layout, np.array([[600], [0]]))))
    assert opened.tolist() == [[176], [1]]


def test_slots_are_contiguous_slices_of_the_vector() -> None:
    layout = SlotLayout(KEY_RING, 8, 10, 3, 8)
    slots = packing.arrange(layout, np.arange(8))
    assert slots.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 0]]
    assert packing.flatten(layout, slots).tolist() == list(range(8))


@pytest.mark.parametrize("count", [0, 7, 9])
def test_a_wrong_number_of_values_is_refused(count: int) -> None:
    with pytest.raises(EncodingError, match="where integers"):
        packing.arrange(SlotLayout(KEY_RING, 8, 10, 3, 8), np.zeros(count, np.int64))


@pytest.mark.parametrize("dtype", [float, bool, object])
def test_values_that_are_no_integers_are_refused(dtype: type) -> None:
    with pytest.raises(EncodingError, match="where integers"):
        packing.arrange(SlotLayout(KEY_RING, 8, 10, 3, 8), np.zeros(8, dtype))


@given(st.data())
@PROPERTY
def test_bits_above_the_last_slot_are_noticed_wherever_they_are(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    bits, end = layout.ring.bits, layout.noise_bits + layout.slots * layout.slot_bits
    slots = slot_values(data, layout)
    limbs = packing.pack(layout, slots)
    assert not packing.has_excess(layout, Element(limbs))
    # The largest noise, too, stays where it belongs.
    limbs[0] += (1 << min(layout.noise_bits, 32)) - 1
    assert not packing.has_excess(layout, Element(limbs))
    if end < bits:
        position = data.draw(st.integers(end, bits - 1) | st.sampled_from([end, bits - 1]))
        column = data.draw(st.integers(0, layout.coefficients - 1))
        limbs[position // 32, column] += 1 << position % 32
        assert packing.has_excess(layout, Element(limbs))


def test_blocks_cover_every_coefficient_once() -> None:
    layout = SlotLayout(KEY_RING, 8, 10, 3, 3 * 4096 * 2 + 5)
    slices = [packing.block_slice(layout, block) for block in range(layout.blocks)]
    assert layout.blocks == 3
    covered = [i for part in slices for i in range(part.start, part.stop)]
    assert covered == list(range(layout.coefficients))
    assert max(part.stop - part.start for part in slices) == KEY_RING.degree
