"""mphe.plan.plan: the plans that follow from the parameters, and their sizes."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import sqrt

import numpy as np
import pytest

from mphe.arithmetic.noise import (
    KEY_PAIRS,
    aggregate_noise,
    extracted_bounds,
    norm_bound,
    proof_bytes,
    smudging_widths,
    verified_noise,
)
from mphe.arithmetic.ring import Ring
from mphe.errors import ParameterError
from mphe.plan.agreement import MAX_LENGTH, MAX_ROUNDS, SessionParameters
from mphe.plan.plan import (
    MIN_DECRYPTION_BUDGET,
    Plan,
    SlotLayout,
    candidates,
    make_plan,
)
from mphe.scheme.decryption import Request, gen_share, read_blocks
from mphe.scheme.encryptor import Encryptor
from mphe.scheme.proof import ShortnessProof
from tests.mphe.support import CNN
from tests.support import make_parameters, make_session, seed_of, seeded

# -- plans -------------------------------------------------------------------------------------

GRID = [
    (n, t, length, bits, encryption)
    for n, length, bits, encryption in product(
        (2, 8, 33, 100, 1000), (1, 4097, CNN), (4, 16, 24), ("hybrid", "direct")
    )
    for t in sorted({2, (n + 1) // 2, n})
    if t >= 2
]


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    """Return every feasible plan of the grid."""
    found = []
    for n, t, length, bits, encryption in GRID:
        session = make_parameters(n, t, length, 100, encryption=encryption, value_bits=bits)
        found += candidates(session)
    return found


def layouts(plan: Plan) -> list[SlotLayout]:
    return [plan.threshold, *([plan.payload] if plan.payload else [])]


def test_every_layout_has_room_for_its_values(plans: list[Plan]) -> None:
    for plan in plans:
        for layout in layouts(plan):
            assert layout.slots * layout.coefficients >= layout.length
            assert layout.slots * (layout.coefficients - 1) < layout.length
            assert layout.blocks * layout.ring.degree >= layout.coefficients
            used = [layout.block_coefficients(block) for block in range(layout.blocks)]
            assert sum(used) == layout.coefficients
            assert all(0 < count <= layout.ring.degree for count in used)
        assert layouts(plan)[-1].length == plan.session.length


def test_slots_and_noise_fit_below_the_modulus(plans: list[Plan]) -> None:
    for plan in plans:
        for layout in layouts(plan):
            assert layout.noise_bits + layout.slots * layout.slot_bits <= layout.ring.bits


def largest_slot(plan: Plan, layout: SlotLayout) -> int:
    """Return the largest sum that honest contributors can put into a slot."""
    if plan.payload is not None and layout is plan.threshold:
        return 2 * KEY_PAIRS * plan.session.capacity
    return plan.session.capacity * ((1 << plan.session.value_bits) - 1)


def test_no_sum_overflows_its_slot_and_the_top_slot_cannot_wrap(plans: list[Plan]) -> None:
    for plan in plans:
        for layout in layouts(plan):
            largest = largest_slot(plan, layout)
            assert largest < 1 << layout.slot_bits
            top = sum(
                largest << (layout.noise_bits + i * layout.slot_bits) for i in range(layout.slots)
            )
            # Twice the largest noise: the noise itself and the half that the reader adds.
            assert top + (1 << layout.noise_bits) <= layout.ring.modulus


def test_the_scale_holds_smudging_noise_and_dropped_bytes(plans: list[Plan]) -> None:
    for plan in plans:
        session, layout = plan.session, plan.threshold
        expected = aggregate_noise(layout.ring.degree, session.num_clients, session.capacity)
        assert plan.noise == expected
        dropped = 0.0
        if plan.dropped_c0:
            dropped += session.capacity * 2.0 ** (8 * plan.dropped_c0 - 1)
        if plan.dropped_share:
            dropped += session.threshold * 2.0 ** (8 * plan.dropped_share - 1)
        needed = 2 * (15 * sqrt(session.threshold) * plan.smudging + plan.noise + dropped)
        assert 2.0**layout.noise_bits >= needed


def test_the_budget_covers_every_decryption_that_a_session_can_ask_for(plans: list[Plan]) -> None:
    for plan in plans:
        session = plan.session
        sets = session.decryptors - session.threshold + 1
        training = session.rounds * session.max_attempts * sets * plan.threshold.blocks
        assert plan.budget >= max(MIN_DECRYPTION_BUDGET, training + sets)
        one_decryptor = session.rounds * session.max_attempts * plan.threshold.blocks
        assert plan.answers >= one_decryptor + session.confirmation_attempts
        sigma = 2.0**32 * sqrt(12 * plan.budget * plan.threshold.ring.degree) * plan.noise
        assert plan.smudging == pytest.approx(sigma, rel=1e-12)


def test_the_range_check_of_bodies_leaves_a_wrong_key_little_room(plans: list[Plan]) -> None:
    for plan in plans:
        if plan.payload is None:
            continue
        honest = plan.body_error * plan.session.capacity
        assert honest <= 2 ** (plan.payload.noise_bits - 7)
        rounding = 2 ** (8 * plan.dropped_body - 1) if plan.dropped_body else 0
        assert plan.body_error == KEY_PAIRS + rounding


def test_the_cheapest_plan_is_chosen() -> None:
    for encryption in ("hybrid", "direct"):
        plans = candidates(make_parameters(8, 4, CNN, 100, encryption=encryption))
        costs = [plan.upload_bytes for plan in plans]
        assert len(costs) > 1
        assert costs == sorted(costs)
        assert make_plan(plans[0].session) == plans[0]


@pytest.mark.parametrize(
    ("n", "rounds", "encryption"),
    [(4096, 10**6, "direct"), (4096, 10**15, "direct"), (1000, 10**15, "hybrid")],
)
def test_no_plan_asks_for_smudging_that_cannot_be_sampled(
    n: int, rounds: int, encryption: str
) -> None:
    try:
        plan = make_plan(make_parameters(n, 2, 1000, rounds, encryption=encryption))
    except ParameterError:
        return
    smudging_widths(plan.smudging)


def test_a_payload_that_no_ring_can_carry_is_refused() -> None:
    # A quarter of the clients lie: their noise leaves no room below the largest modulus.
    for encryption in ("hybrid", "direct"):
        session = SessionParameters(
            *(4096, 2561, MAX_LENGTH, MAX_ROUNDS), encryption=encryption, verified=True
        )
        assert session.max_corrupt == 1025
        with pytest.raises(ParameterError, match="no ring can carry this payload"):
            make_plan(session)


# -- verified aggregates -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def verified_plans() -> list[Plan]:
    """Return feasible plans of sessions whose server may lie."""
    found = []
    for n, t, k, c in ((3, 3, 3, 1), (8, 5, 8, 1), (8, 8, 8, 0), (100, 60, 100, None)):
        for length, encryption in product((1, 4097, CNN), ("hybrid", "direct")):
            session = SessionParameters(
                *(n, t, length, 100), decryptors=k, encryption=encryption, verified=True,
                max_corrupt=c,
            )  # fmt: skip
            found += candidates(session)
    return found


def test_a_verified_layout_leaves_two_bits_for_the_relaxation(verified_plans: list[Plan]) -> None:
    assert len(verified_plans) > 20
    for plan in verified_plans:
        layout = plan.threshold
        assert plan.scaling == 4
        for round in (0, 1):
            read = plan.threshold_layout(round)
            assert plan.encryption_layout(round) == replace(read, noise_bits=read.noise_bits - 2)
        assert layout.noise_bits + layout.slots * layout.slot_bits <= layout.ring.bits
        top = largest_slot(plan, layout) << (
            layout.noise_bits + (layout.slots - 1) * layout.slot_bits
        )
        assert top + (1 << layout.noise_bits) < layout.ring.modulus


def test_without_verification_nothing_is_scaled(plans: list[Plan]) -> None:
    for plan in plans:
        assert (plan.scaling, plan.proof_bytes) == (1, 0)
        assert plan.encryption_layout(1) == plan.threshold_layout(1)


def test_a_verified_scale_holds_the_noise_of_liars_and_four_times_what_is_dropped(
    verified_plans: list[Plan],
) -> None:
    for plan in verified_plans:
        session, layout = plan.session, plan.threshold
        degree = layout.ring.degree
        assert plan.noise == verified_noise(
            degree, session.num_clients, session.capacity, session.max_corrupt
        )
        # Far more than what honest clients make, also when it is multiplied by four.
        honest = 4 * aggregate_noise(degree, session.num_clients, session.capacity)
        assert plan.noise > (2**20 if session.max_corrupt else 1 / 2) * honest
        dropped = 0.0
        if plan.dropped_c0:
            rounding = 4 * session.capacity * 2.0 ** (8 * plan.dropped_c0 - 1)
            assert rounding <= 2 * plan.smudging
            dropped += rounding
        if plan.dropped_share:
            dropped += session.threshold * 2.0 ** (8 * plan.dropped_share - 1)
        needed = 2 * (15 * sqrt(session.threshold) * plan.smudging + plan.noise + dropped)
        assert 2.0**layout.noise_bits >= needed
        sigma = 2.0**32 * sqrt(12 * plan.budget * degree) * plan.noise
        assert plan.smudging == pytest.approx(sigma, rel=1e-12)


def test_an_upload_includes_the_proofs_of_every_block(verified_plans: list[Plan]) -> None:
    # ceil(128 / log2 2N) responses of N times 20 bits, and a seed.
    bytes_of = {4096: 32 + 10 * 10240, 8192: 32 + 10 * 20480, 16384: 32 + 9 * 40960}
    for plan in verified_plans:
        expected = plan.threshold.blocks * bytes_of[plan.threshold.ring.degree]
        assert plan.proof_bytes == expected
        assert plan.upload_bytes == plan.key_bytes + plan.body_bytes + expected
    assert {plan.threshold.blocks > 1 for plan in verified_plans} == {True, False}


def test_the_proofs_of_a_real_contribution_have_the_length_of_the_plan() -> None:
    plan = make_plan(SessionParameters(3, 3, 100, 2, verified=True))
    session = make_session(make_parameters(2, 2, 100), plan=plan)
    prover = ShortnessProof(session.ring, session.key.reference)
    prepared = session.key.prepare(seeded("prepared"))
    proof = prover.prove(prepared.c1, prepared.opening, b"context", seeded("proof"))
    assert len(proof) * plan.threshold.blocks == plan.proof_bytes


# -- proofs of clients -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proving_plans() -> list[Plan]:
    """Return feasible plans of sessions whose clients may lie."""
    found = []
    for n, t, rounds in ((2, 2, 1), (4, 3, 100), (8, 4, 100), (100, 50, 100), (4096, 2048, 10)):
        for length, encryption in product((1, 4097, CNN), ("hybrid", "direct")):
            session = SessionParameters(
                *(n, t, length, rounds), encryption=encryption, verify_clients=True
            )
            found += candidates(session)
    return found


def test_what_clients_prove_is_decrypted_twice_over(proving_plans: list[Plan]) -> None:
    assert len(proving_plans) > 20
    for plan in proving_plans:
        session, degree = plan.session, plan.threshold.ring.degree
        assert plan.scaling == 2
        for round in (0, 1):
            read = plan.threshold_layout(round)
            assert plan.encryption_layout(round) == replace(read, noise_bits=read.noise_bits - 1)
        honest = aggregate_noise(degree, session.num_clients, session.capacity)
        assert plan.noise == 2 * honest
        assert plan.proof_bytes == plan.threshold.blocks * proof_bytes(degree)
        assert plan.upload_bytes == plan.key_bytes + plan.body_bytes + plan.proof_bytes


def test_what_proofs_leave_open_drowns_in_the_smudging(proving_plans: list[Plan]) -> None:
    """All dealers but two or one contributor use all that their proofs leave open."""
    for plan in proving_plans:
        session, degree = plan.session, plan.threshold.ring.degree
        u, e = extracted_bounds(degree)
        n = session.num_clients
        root = sqrt(degree)
        fresh = 2 / 3 * e**2 + 21 / 2 * u**2
        dealers = 16 * (n - 2) * sqrt(session.capacity * degree * fresh)
        secret, error = norm_bound(n * 2 / 3, degree), norm_bound(n * 21 / 2, degree)
        contributor = root * (error * u + secret * e)
        assert dealers + contributor < plan.smudging / 2**9
        # Kullback-Leibler, of a vector that one Gaussian of deviation σ hides.
        shown = degree * (contributor / plan.smudging) ** 2 / 2
        assert shown < (2**-13 if plan.session.num_clients >= 8 and degree == 4096 else 2**-5)


def test_additive_keys_get_a_plan_too() -> None:
    plan = make_plan(make_parameters(5, 5, robust=False))
    assert plan.session.confirmations == 1


def test_confirmation_carries_one_full_block() -> None:
    plan = make_plan(make_parameters(3, 2, 5))
    assert plan.threshold_layout(1) == plan.threshold
    layout = plan.threshold_layout(0)
    assert (layout.blocks, layout.coefficients) == (1, layout.ring.degree)


# -- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encryption", ["hybrid", "direct"])
@pytest.mark.parametrize(("n", "length"), [(3, 1), (3, 70_001), (40, 20_000)])
def test_sizes_are_those_of_real_messages(encryption: str, n: int, length: int) -> None:
    for plan in candidates(make_parameters(n, 2, length, encryption=encryption)):
        session = make_session(make_parameters(2, 2, length), plan=plan)
        payload = Encryptor(plan, session.key, session.crs_seed).encrypt(
            np.zeros(length, np.int64), seeded("sizes")
        )
        assert len(payload.c0) + len(payload.c1) == plan.key_bytes
        assert len(payload.body) == plan.body_bytes
        assert plan.upload_bytes == plan.key_bytes + plan.body_bytes
        ring = Ring(plan.threshold.ring)
        request = Request(bytes(32), 1, 1, (1, 2), payload.c1)
        scaled = session.scaled(1, (1, 2), plan)
        share = gen_share(plan, ring, scaled, request, {}, seed_of("share"))
        assert len(share) == plan.share_bytes
        read_blocks(ring, plan.threshold, share, plan.dropped_share)


def test_the_cnn_costs_at_most_3_1_bytes_a_value() -> None:
    plan = make_plan(make_parameters(8, 4, CNN, 100))
    assert plan.upload_bytes <= 3.1 * CNN
    assert plan.upload_bytes < 4 * CNN


def test_the_cost_of_a_value_grows_with_the_slot_and_not_with_the_clients() -> None:
    length = 10_000_000
    for n in (2, 8, 64, 512, 4096):
        plan = make_plan(make_parameters(n, max(2, n // 2), length, 100))
        slot_bytes = plan.session.slot_bits / 8
        assert plan.session.slot_bits == 16 + (n - 1).bit_length()
        # The noise below the slots and what the packing wastes stay below a quarter.
        assert plan.body_bytes / length < 1.25 * slot_bytes
        assert plan.key_bytes < 0.1 * plan.upload_bytes


def test_decryption_costs_the_same_for_every_length_in_hybrid_mode() -> None:
    plans = [make_plan(make_parameters(8, 4, 10**k, 100)) for k in range(3, 9)]
    # One size for each payload ring: what is decrypted is one key, however long the vector.
    sizes = {(plan.payload.ring.name, plan.share_bytes) for plan in plans if plan.payload}
    assert len(sizes) <= 2
    assert len({plan.share_bytes for plan in plans[3:]}) == 1
    assert max(plan.share_bytes for plan in plans) <= 40_960
    direct = [
        make_plan(make_parameters(8, 4, 10**k, 100, encryption="direct")).share_bytes
        for k in (5, 7)
    ]
    assert direct[1] > 50 * direct[0]
