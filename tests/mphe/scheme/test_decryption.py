"""mphe.scheme.decryption: masks cancel over D, and hide everything when one member is silent."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from mphe.arithmetic.ring import Element, Integers, Limbs
from mphe.arithmetic.sampling import uniform
from mphe.errors import EncodingError, ParameterError
from mphe.plan.plan import Plan
from mphe.scheme import decryption, packing
from mphe.scheme.decryption import (
    Request,
    aggregate_shares,
    finish,
    gen_share,
    read_blocks,
    read_c1,
)
from tests.support import (
    DealtSession,
    centred,
    element_to_integers,
    integers,
    integers_to_element,
    limbs_to_integers,
    make_parameters,
    make_session,
    product,
    seed_of,
    seeded,
    uniform_deviation,
)

SESSION = make_session(make_parameters(5, 3))
RING = SESSION.ring
LAYOUT = SESSION.plan.threshold
C1 = uniform(seeded("c1"), RING)


def request_for(active: tuple[int, ...], attempt: int = 1, c1: bytes = b"") -> Request:
    blocks = RING.to_bytes(C1) * LAYOUT.blocks
    return Request(SESSION.transcript, 1, attempt, active, c1 or blocks)


def answer(
    j: int,
    request: Request,
    session: DealtSession = SESSION,
    plan: Plan | None = None,
    masked: bool = True,
) -> list[Element]:
    """Return h_j as the server reads it."""
    plan, ring = plan or session.plan, session.ring
    keys = session.signed_mask_keys(j, request.active) if masked else {}
    scaled = session.scaled(j, request.active, plan)
    data = gen_share(plan, ring, scaled, request, keys, seed_of(f"{j}"))
    layout = plan.threshold_layout(request.round)
    return read_blocks(ring, layout, data, plan.dropped_share)


def exact(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Switch smudging off and return a plan that drops no bytes: only λ·s·c1 + mask is left."""
    monkeypatch.setattr(decryption, "add_smudging", lambda source, limbs, deviation: None)
    return replace(SESSION.plan, dropped_share=0)


def s_times_c1(count: int) -> list[int]:
    """Return the first coefficients of s·c1, by FLINT."""
    whole = product(integers(SESSION.secret), element_to_integers(RING, C1), RING.modulus)
    return whole[:count]


# -- a decryption share ------------------------------------------------------------------------


@pytest.mark.parametrize("active", [(1, 2, 3), (1, 3, 5), (2, 4, 5), (1, 2, 3, 4, 5)])
def test_masks_cancel_over_the_active_set_exactly(
    active: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = exact(monkeypatch)
    answers = [answer(j, request_for(active), plan=plan) for j in active]
    for block, total in enumerate(aggregate_shares(answers)):
        used = LAYOUT.block_coefficients(block)
        assert element_to_integers(RING, total) == s_times_c1(used)


def test_masks_of_different_attempts_do_not_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = exact(monkeypatch)
    active = (1, 2, 3)
    answers = [answer(j, request_for(active, attempt=1), plan=plan) for j in (1, 2)]
    answers.append(answer(3, request_for(active, attempt=2), plan=plan))
    total = aggregate_shares(answers)[0]
    assert element_to_integers(RING, total) != s_times_c1(total.shape[1])


@pytest.mark.parametrize("silent", [1, 2, 3])
def test_what_is_left_without_one_member_is_uniform(
    silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = exact(monkeypatch)
    active = (1, 2, 3)
    factors = {j: scaled_integers(j, active) for j in active if j != silent}
    answers = [answer(j, request_for(active), plan=plan)[0] for j in factors]
    total = np.sum(answers, axis=0)
    used = total.shape[1]
    known = [0] * used
    for values in factors.values():
        part = product(values, element_to_integers(RING, C1), RING.modulus)[:used]
        known = [x + y for x, y in zip(known, part, strict=True)]
    # Even who knows every λ·s·c1 of the others is left with a uniform mask.
    pairs = zip(element_to_integers(RING, total), known, strict=True)
    rest = integers_to_element(RING, [x - y for x, y in pairs])
    for limb in rest:
        assert abs(uniform_deviation(limb & 0xFF, 256)) < 5
        assert abs(uniform_deviation(limb >> 24, 256)) < 5


def scaled_integers(j: int, active: tuple[int, ...]) -> list[int]:
    """Return λ_j·s_j, by Python integers."""
    q, numerator, denominator = RING.modulus, 1, 1
    for other in active:
        if other != j:
            numerator, denominator = numerator * other, denominator * (other - j)
    factor = numerator * pow(denominator, -1, q) % q
    return [factor * value % q for value in element_to_integers(RING, SESSION.shares[j])]


@pytest.mark.parametrize("j", [1, 4])
def test_an_answer_without_mask_and_smudging_is_lambda_times_s_times_c1(
    j: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, active = exact(monkeypatch), (1, 4, 5)
    got = answer(j, request_for(active), plan=plan, masked=False)[0]
    want = product(scaled_integers(j, active), element_to_integers(RING, C1), RING.modulus)
    assert element_to_integers(RING, got) == want[: got.shape[1]]


def test_every_answer_is_smudged() -> None:
    plan = replace(SESSION.plan, dropped_share=0)
    active = (1, 2, 3)
    for j in active:
        got = answer(j, request_for(active), plan=plan, masked=False)[0]
        want = product(scaled_integers(j, active), element_to_integers(RING, C1), RING.modulus)
        pairs = zip(element_to_integers(RING, got), want, strict=False)
        noise = [x / plan.smudging for x in centred((a - b for a, b in pairs), RING.modulus)]
        assert np.std(noise) == pytest.approx(1, rel=0.1)
        assert max(map(abs, noise)) < 7


def test_each_block_has_its_own_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = exact(monkeypatch)
    threshold = replace(LAYOUT, length=LAYOUT.ring.degree * LAYOUT.slots * 2)
    plan = replace(plan, threshold=threshold)
    request = request_for((1, 2, 3), c1=RING.to_bytes(C1) * 2)
    one, two = answer(1, request, plan=plan)
    assert not (one == two).all(axis=0).any()


# -- what enters the masks ---------------------------------------------------------------------


def test_the_label_differs_when_any_part_of_the_request_differs() -> None:
    base = Request(bytes(32), 1, 1, (1, 2, 3), b"c1")
    variants = [
        base,
        replace(base, session=b"\1" * 32),
        replace(base, round=2),
        replace(base, attempt=2),
        replace(base, active=(1, 2, 4)),
        replace(base, active=(1, 2)),
        replace(base, c1=b"c2"),
        replace(base, c1=b""),
        # Fields may not run into each other.
        replace(base, round=1 << 8, attempt=0),
    ]
    assert len({variant.label for variant in variants}) == len(variants)


def test_every_group_has_masks_and_smudging_of_its_own() -> None:
    """Else two answers under one mask would show λ·s times the difference of two c1."""
    request = Request(bytes(32), 1, 1, (1, 2, 3), b"c1")
    key = bytes(32)
    seeds = [f(key, group) for f in (request.mask_seed, request.smudging_seed) for group in (0, 1)]
    assert len(set(seeds)) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"session": bytes(32)},
        {"round": 2},
        {"attempt": 2},
        {"active": (1, 2, 4)},
        {"c1": b"\1" + RING.to_bytes(C1)[1:]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_request_gets_another_mask(
    change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = exact(monkeypatch)
    base = request_for((1, 2, 3))
    other = replace(base, **change)  # type: ignore[arg-type]
    masks = []
    for request in (base, other):
        masked = answer(1, request, plan=plan)[0]
        bare = answer(1, request, plan=plan, masked=False)[0]
        masks.append(RING.reduce(Limbs(masked - bare)))
    assert not (masks[0] == masks[1]).all(axis=0).any()


# -- whole decryptions -------------------------------------------------------------------------


def encrypt_sum(session: DealtSession, vectors: list[Integers]) -> tuple[list[Element], bytes]:
    """Return Σc0 block by block and Σc1 as on the wire."""
    layout, ring = session.plan.threshold, session.ring
    c0, c1 = [], b""
    for block in range(layout.blocks):
        parts = []
        for vector in vectors:
            slots = packing.arrange(layout, vector)[:, packing.block_slice(layout, block)]
            source = seeded(f"{block} {vector[:3]}")
            parts.append(session.key.encrypt(packing.pack(layout, slots), source))
        c0.append(np.sum([p.c0[:, : layout.block_coefficients(block)] for p in parts], axis=0))
        c1 += ring.to_bytes(ring.reduce(np.sum([p.c1 for p in parts], axis=0)))
    return c0, c1


@pytest.mark.parametrize("length", [1, 100, 90_000])
def test_any_t_of_n_decrypt_the_sum(length: int) -> None:
    session = make_session(make_parameters(4, 2, length, encryption="direct"))
    plan, layout = session.plan, session.plan.threshold
    vectors = [
        (seeded(client).words(length) & np.uint64(0xFFFF)).astype(np.int64) for client in range(4)
    ]
    vectors[0][:] = 0xFFFF
    c0, c1 = encrypt_sum(session, vectors)
    sets = list(combinations(range(1, 5), 2)) if length < 1000 else [(2, 4)]
    for active in sets:
        request = Request(session.transcript, 1, 1, active, c1)
        shares = aggregate_shares([answer(j, request, session, plan) for j in active])
        got = finish(plan, session.ring, layout, c0, shares)
        assert got.tolist() == np.sum(vectors, axis=0).tolist()


def test_a_missing_member_leaves_noise_that_is_noticed() -> None:
    session = make_session(make_parameters(3, 2, 2000, encryption="direct"))
    plan, layout = session.plan, session.plan.threshold
    vectors = [np.full(2000, value, np.int64) for value in (1, 2)]
    c0, c1 = encrypt_sum(session, vectors)
    request = Request(session.transcript, 1, 1, (1, 2), c1)
    for j in (1, 2):
        with pytest.raises(EncodingError, match="out of range"):
            finish(plan, session.ring, layout, c0, answer(j, request, session, plan))


# -- the wire ----------------------------------------------------------------------------------


def test_c1_of_a_wrong_length_is_refused() -> None:
    data = RING.to_bytes(C1) * LAYOUT.blocks
    assert len(read_c1(RING, LAYOUT, data)) == LAYOUT.blocks
    for wrong in (b"", data[:-1], data + b"\0", data * 2):
        with pytest.raises(EncodingError, match="c1 has"):
            read_c1(RING, LAYOUT, wrong)


@pytest.mark.parametrize("excess", [0, 1, RING.parameters.subtrahend - 1])
def test_c1_that_is_not_canonical_is_refused(excess: int) -> None:
    # Two encodings of one c1 would be two aggregates with two masks and one s·c1.
    forged = bytearray(RING.to_bytes(C1))
    value = RING.modulus + excess
    for limb in range(RING.limbs):
        start = 4 * RING.degree * limb
        forged[start : start + 4] = (value >> (32 * limb) & 0xFFFFFFFF).to_bytes(4, "little")
    with pytest.raises(EncodingError, match="not below the modulus"):
        read_c1(RING, LAYOUT, bytes(forged) + RING.to_bytes(C1) * (LAYOUT.blocks - 1))


def test_a_share_of_a_wrong_length_is_refused() -> None:
    dropped = SESSION.plan.dropped_share
    data = bytes(RING.wire_length(LAYOUT.coefficients, dropped))
    blocks = read_blocks(RING, LAYOUT, data, dropped)
    assert [block.shape[1] for block in blocks] == [
        LAYOUT.block_coefficients(block) for block in range(LAYOUT.blocks)
    ]
    for wrong in (b"", data[:-1], data + b"\0"):
        with pytest.raises(EncodingError, match="bytes where"):
            read_blocks(RING, LAYOUT, wrong, dropped)


def test_a_share_for_a_set_without_its_owner_is_refused() -> None:
    with pytest.raises(ParameterError, match="not a set that contains"):
        SESSION.scaled(1, (2, 3, 4))


def test_shares_of_different_sizes_do_not_add_up() -> None:
    zero = Element(Limbs(np.zeros((3, 4), np.int64)))
    one, two = Element(Limbs(zero + 1)), Element(Limbs(zero + 2))
    (total,) = aggregate_shares([[one], [two]])
    assert limbs_to_integers(total)[0] == 3 * (1 + (1 << 32) + (1 << 64))
    with pytest.raises(ValueError, match="zip"):
        aggregate_shares([[zero], [zero, zero]])
