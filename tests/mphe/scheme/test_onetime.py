"""mphe.scheme.onetime: bodies open under the sum of their keys, and only under it."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from mphe.arithmetic.noise import KEY_PAIRS, KEY_VARIANCE, norm_bound, worst_case_product_error
from mphe.arithmetic.ring import Element, Limbs, Small
from mphe.arithmetic.sampling import expand
from mphe.errors import EncodingError, ParameterError
from mphe.plan.plan import Plan, SlotLayout, candidates, make_plan
from mphe.scheme import packing
from mphe.scheme.onetime import OneTimeCipher, keys_plausible
from tests.support import (
    RecordingRing,
    centred,
    element_to_integers,
    integers,
    integers_to_element,
    make_parameters,
    product,
    seeded,
    uniform_deviation,
)

SEED = bytes(range(32))
CLIENTS = 5


def plans() -> list[Plan]:
    """Return one plan for each payload ring, of more than two blocks."""
    found = candidates(make_parameters(CLIENTS, 2, 800_000))
    by_ring = {plan.payload.ring.name: plan for plan in reversed(found) if plan.payload}
    assert set(by_ring) == {"data", "large"}
    return list(by_ring.values())


PLANS = pytest.mark.parametrize("plan", plans(), ids=lambda plan: plan.payload.ring.name)


def make_slots(cipher: OneTimeCipher, block: int, label: str) -> NDArray[np.int64]:
    layout = cipher.layout
    shape = (layout.slots, layout.block_coefficients(block))
    words = seeded(label).words(shape[0] * shape[1])
    return (words & np.uint64(0xFFFF)).astype(np.int64).reshape(shape)


@PLANS
def test_a_body_is_a_times_k_plus_a_small_error_plus_the_payload(plan: Plan) -> None:
    cipher, block = OneTimeCipher(plan, SEED), 1
    ring, layout = cipher.ring, cipher.layout
    slots, source = make_slots(cipher, block, "body"), seeded("body")
    key = cipher.gen_key(source)
    body = cipher.encrypt_block(block, cipher.prepare(key), slots, source)
    reference = element_to_integers(ring, expand(ring, SEED, "payload", block))
    hidden = product(integers(key), reference, ring.modulus)
    errors = []
    for index, (value, mask) in enumerate(
        zip(element_to_integers(ring, body), hidden, strict=False)
    ):
        payload = sum(
            int(slot) << (layout.noise_bits + i * layout.slot_bits)
            for i, slot in enumerate(slots[:, index])
        )
        errors += centred([value - mask - payload], ring.modulus)
    assert max(map(abs, errors)) <= KEY_PAIRS
    deviation = sqrt(sum(x * x for x in errors) / len(errors))
    assert deviation == pytest.approx(sqrt(KEY_PAIRS / 2), rel=5 / sqrt(2 * len(errors)))


def contribute(
    cipher: OneTimeCipher, block: int, count: int = CLIENTS
) -> tuple[Small, Element, NDArray[np.int64]]:
    """Return Σk, Σbody and Σslots of so many clients."""
    keys, bodies, slots = [], [], []
    for client in range(count):
        source = seeded(f"client {client}")
        slots.append(make_slots(cipher, block, f"slots {client}"))
        keys.append(cipher.gen_key(source))
        bodies.append(cipher.encrypt_block(block, cipher.prepare(keys[-1]), slots[-1], source))
    return np.sum(keys, axis=0), np.sum(bodies, axis=0), np.sum(slots, axis=0)


@PLANS
@pytest.mark.parametrize("last", [False, True], ids=["full block", "last block"])
def test_the_sum_of_bodies_opens_under_the_sum_of_keys(plan: Plan, last: bool) -> None:
    cipher = OneTimeCipher(plan, SEED)
    block = cipher.layout.blocks - 1 if last else 0
    key_sum, body_sum, slot_sum = contribute(cipher, block)
    opened, errors = cipher.recover_block(block, cipher.prepare(key_sum), body_sum)
    assert np.array_equal(opened, slot_sum)
    assert 0 < np.abs(errors).max() <= KEY_PAIRS * CLIENTS
    assert cipher.errors_plausible(errors, CLIENTS)


@PLANS
def test_dropped_bytes_of_a_body_do_not_disturb_the_slots(plan: Plan) -> None:
    cipher = OneTimeCipher(plan, SEED)
    ring, used = cipher.ring, cipher.layout.ring.degree
    key_sum, body_sum, slot_sum = contribute(cipher, 0, 1)
    data = ring.to_bytes(body_sum, plan.dropped_body)
    read = ring.from_bytes(data, used, plan.dropped_body)
    opened, errors = cipher.recover_block(0, cipher.prepare(key_sum), read)
    assert np.array_equal(opened, slot_sum)
    assert cipher.errors_plausible(errors, 1)


def opens(cipher: OneTimeCipher, block: int, key_sum: Small, body_sum: Element) -> bool:
    """Return whether the sum passes every check of the recovery."""
    try:
        _, errors = cipher.recover_block(block, cipher.prepare(key_sum), body_sum)
    except EncodingError as error:
        assert "out of range" in str(error)
        return False
    return cipher.errors_plausible(errors, CLIENTS)


@PLANS
@pytest.mark.parametrize("position", [0, 4000])
def test_a_key_that_is_off_by_one_fails_the_range_check(plan: Plan, position: int) -> None:
    cipher = OneTimeCipher(plan, SEED)
    key_sum, body_sum, _ = contribute(cipher, 0)
    assert opens(cipher, 0, key_sum, body_sum)
    key_sum[position] += 1
    assert not opens(cipher, 0, key_sum, body_sum)


def test_another_block_has_another_reference() -> None:
    cipher = OneTimeCipher(plans()[0], SEED)
    key_sum, body_sum, _ = contribute(cipher, 0)
    assert not opens(cipher, 1, key_sum, body_sum)


def test_a_sum_that_reaches_above_the_last_slot_is_refused() -> None:
    cipher = OneTimeCipher(make_plan(make_parameters(CLIENTS, 2, 100)), SEED)
    assert room_above(cipher.layout) > 0
    key_sum, body_sum, _ = contribute(cipher, 0)
    top = cipher.layout.ring.bits - room_above(cipher.layout)
    body_sum[top // 32, 0] += 1 << top % 32
    with pytest.raises(EncodingError, match="out of range"):
        cipher.recover_block(0, cipher.prepare(key_sum), body_sum)


def room_above(layout: SlotLayout) -> int:
    """Return how many bits of a coefficient lie above the last slot."""
    return layout.ring.bits - layout.noise_bits - layout.slots * layout.slot_bits


def test_the_reference_of_a_block_is_the_same_for_everybody() -> None:
    plan = plans()[0]
    key_sum, body_sum, slot_sum = contribute(OneTimeCipher(plan, SEED), 2)
    reader = OneTimeCipher(plan, SEED, cached_bytes=1 << 20)
    opened, _ = reader.recover_block(2, reader.prepare(key_sum), body_sum)
    assert np.array_equal(opened, slot_sum)
    assert not opens(OneTimeCipher(plan, bytes(32)), 2, key_sum, body_sum)


def test_two_bodies_of_one_payload_share_nothing() -> None:
    cipher, source = OneTimeCipher(plans()[0], SEED), seeded("two")
    slots = make_slots(cipher, 0, "two")
    one, two = (
        cipher.encrypt_block(0, cipher.prepare(cipher.gen_key(source)), slots, source)
        for _ in range(2)
    )
    difference = cipher.ring.reduce(Limbs(one - two))
    for limb in difference:
        assert abs(uniform_deviation(limb & 0xFF, 256)) < 5


def test_keys_are_fresh_and_within_41() -> None:
    cipher, source = OneTimeCipher(plans()[0], SEED), seeded("fresh")
    one, two = cipher.gen_key(source), cipher.gen_key(source)
    assert not np.array_equal(one, two)
    assert np.abs(one).max() <= KEY_PAIRS
    assert one.std() == pytest.approx(4.53, rel=0.05)


def test_sums_of_honest_keys_are_plausible() -> None:
    cipher = OneTimeCipher(plans()[0], SEED)
    keys = [cipher.gen_key(seeded(label)) for label in range(50)]
    for count in (1, 2, 5, 50):
        assert keys_plausible(np.sum(keys[:count], axis=0), count)


def test_a_key_sum_with_one_coefficient_out_of_range_is_not_plausible() -> None:
    key_sum = np.zeros(8192, np.int64)
    key_sum[17] = -KEY_PAIRS * 3
    assert keys_plausible(Small(key_sum), 3)
    key_sum[17] -= 1
    assert not keys_plausible(Small(key_sum), 3)


def test_a_key_sum_of_too_large_a_norm_is_not_plausible() -> None:
    # The digit width of recovery rests on the norm: every coefficient at 41 is not honest.
    assert not keys_plausible(Small(np.full(8192, KEY_PAIRS, np.int64)), 1)
    assert not keys_plausible(Small(np.full(8192, -KEY_PAIRS * 7, np.int64)), 7)


def test_the_largest_plausible_key_sum_is_recovered_exactly() -> None:
    clients = 1000
    plan = next(p for p in candidates(make_parameters(clients, 2, 50_000)) if p.payload)
    cipher = OneTimeCipher(plan, SEED)
    cipher.ring = recording = RecordingRing(cipher.layout.ring)
    degree, size = recording.degree, 0
    while keys_plausible(Small(np.full(degree, size + 1, np.int64)), clients):
        size += 1
    key_sum = np.full(degree, size, np.int64)
    key_sum[::2] *= -1
    slots = make_slots(cipher, 0, "largest")
    reference = element_to_integers(recording, expand(recording, SEED, "payload", 0))
    hidden = product(integers(key_sum), reference, recording.modulus)
    mask = integers_to_element(recording, hidden)[:, : slots.shape[1]]
    body_sum = packing.pack(cipher.layout, slots) + mask
    opened, errors = cipher.recover_block(0, cipher.prepare(Small(key_sum)), Limbs(body_sum))
    assert np.array_equal(opened, slots)
    assert not errors.any()
    # 32-bit digits would be right by luck: the bound must hold for the width in use.
    norm = norm_bound(clients * KEY_VARIANCE, degree)
    bound = worst_case_product_error(degree, norm, sqrt(degree) * 2**15)
    print(f"sum of {clients} keys: {recording.distance:.2e}, worst case {bound:.2e}")
    assert 0 < recording.distance < bound < 0.5


def test_the_range_check_takes_its_bound_exactly() -> None:
    plan = plans()[0]
    cipher = OneTimeCipher(plan, SEED)
    bound = plan.body_error * 3
    assert cipher.errors_plausible(np.array([0, bound, -bound]), 3)
    assert not cipher.errors_plausible(np.array([bound + 1]), 3)
    assert not cipher.errors_plausible(np.array([-bound - 1]), 3)


def test_direct_mode_has_no_one_time_cipher() -> None:
    with pytest.raises(ParameterError, match="no one-time keys"):
        OneTimeCipher(make_plan(make_parameters(encryption="direct")), SEED)
