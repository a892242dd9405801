"""mphe.parameters: the security table, the ranges, and the plans that follow."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import fields, replace
from itertools import product
from math import log, log2, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mphe.contributor import Encryptor
from mphe.decryption import Request, gen_share, read_blocks, scaled_share
from mphe.errors import ParameterError
from mphe.noise import (
    FAILURE_EXPONENT,
    KEY_PAIRS,
    TAIL,
    aggregate_noise,
    failure_exponent,
    smudging_widths,
)
from mphe.parameters import (
    MAX_CLIENTS,
    MAX_LENGTH,
    MAX_ROUNDS,
    MIN_DECRYPTION_BUDGET,
    Plan,
    SessionParameters,
    SlotLayout,
    candidates,
    make_plan,
)
from mphe.ring import Ring
from mphe.rings import MAX_LOG_Q, RINGS, RingParameters
from tests.support import make_parameters, make_session, seeded

ROOT = Path(__file__).parents[2]
CNN = 199_658


# -- security ----------------------------------------------------------------------------------


def test_the_table_is_that_of_the_2024_guidelines() -> None:
    # Bossuat et al. 2024/463, ternary secret, 128 bits, classical.
    assert MAX_LOG_Q == {4096: 106, 8192: 214, 16384: 430}


@pytest.mark.parametrize("ring", RINGS, ids=lambda ring: ring.name)
def test_every_ring_in_use_is_in_the_table(ring: RingParameters) -> None:
    ring.check_secure()
    assert log2(ring.modulus) <= MAX_LOG_Q[ring.degree]


@pytest.mark.parametrize(
    "insecure",
    [
        RingParameters("insecure_modulus", 4096, 4, 17),
        RingParameters("insecure_data", 8192, 7, 237),
        RingParameters("insecure_large", 16384, 14, 435),
        RingParameters("insecure_small", 1024, 1, 5),
        RingParameters("insecure_unknown", 32768, 6, 237),
    ],
    ids=lambda ring: ring.name,
)
def test_a_ring_outside_of_the_table_is_refused(insecure: RingParameters) -> None:
    with pytest.raises(ParameterError, match=f"ring {insecure.name}.*below 128-bit security"):
        insecure.check_secure()


def test_no_plan_is_made_in_an_insecure_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    insecure_ring = RingParameters("insecure_ring", 8192, 13, 435)
    monkeypatch.setattr("mphe.parameters.RINGS", (insecure_ring,))
    with pytest.raises(ParameterError, match="insecure_ring"):
        make_plan(make_parameters(encryption="direct"))


# -- ranges ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_clients": 1, "threshold": 1}, "1 clients; use 2 to"),
        ({"num_clients": MAX_CLIENTS + 1}, f"{MAX_CLIENTS + 1} clients"),
        ({"num_clients": 0}, "0 clients"),
        ({"threshold": 1}, "threshold 1 with 8 decryptors; use 2 to 8"),
        ({"threshold": 9}, "threshold 9 with 8 decryptors"),
        ({"threshold": 0}, "threshold 0"),
        ({"threshold": 5, "decryptors": 4}, "threshold 5 with 4 decryptors"),
        ({"decryptors": 9}, "9 decryptors among 8 clients"),
        ({"decryptors": 1}, "1 decryptors among 8 clients"),
        ({"decryptors": -1}, "-1 decryptors"),
        ({"robust": False}, "without robustness every client must decrypt"),
        ({"robust": False, "threshold": 7, "decryptors": 7}, "without robustness"),
        ({"capacity": 7}, "capacity 7; use 8 or more"),
        ({"capacity": MAX_CLIENTS + 1}, f"capacity {MAX_CLIENTS + 1}"),
        ({"min_contributors": 1}, r"min_contributors must lie in 2\.\.8"),
        ({"min_contributors": 9}, "min_contributors"),
        ({"length": 0}, "0 values; use 1 to"),
        ({"length": MAX_LENGTH + 1}, f"{MAX_LENGTH + 1} values"),
        ({"value_bits": 3}, "value_bits 3; use 4 to 24"),
        ({"value_bits": 25}, "value_bits 25"),
        ({"rounds": 0}, "0 rounds; use 1"),
        ({"rounds": MAX_ROUNDS + 1}, "rounds; use 1 to"),
        ({"threshold": 4.0}, "threshold must be of type int"),
        ({"length": True}, "length must be of type int"),
        ({"max_attempts": 0}, "0 attempts; use 1"),
        ({"encryption": "none"}, "encryption is hybrid or direct"),
    ],
    ids=str,
)
def test_a_field_out_of_range_is_refused_with_a_reason(
    change: dict[str, Any], message: str
) -> None:
    good: dict[str, Any] = {"num_clients": 8, "threshold": 4, "length": 100, "rounds": 10}
    SessionParameters(**good)
    with pytest.raises(ParameterError, match=message):
        SessionParameters(**(good | change))


@pytest.mark.parametrize(
    "limits",
    [
        {"num_clients": 2, "threshold": 2},
        {"num_clients": MAX_CLIENTS},
        {"threshold": 8},
        {"robust": False, "threshold": 8},
        {"decryptors": 4},
        {"capacity": MAX_CLIENTS},
        {"min_contributors": 2},
        {"min_contributors": 8},
        {"length": 1},
        {"length": MAX_LENGTH},
        {"value_bits": 4},
        {"value_bits": 24},
        {"rounds": 1, "max_attempts": 1},
    ],
    ids=str,
)
def test_the_ends_of_every_range_are_allowed(limits: dict[str, Any]) -> None:
    good: dict[str, Any] = {"num_clients": 8, "threshold": 4, "length": 100, "rounds": 10}
    SessionParameters(**(good | limits))


def test_what_is_left_out_is_filled_in() -> None:
    session = SessionParameters(num_clients=8, threshold=4, length=10, rounds=1)
    assert (session.decryptors, session.capacity, session.min_contributors) == (8, 8, 4)


def test_the_digest_differs_when_any_field_differs() -> None:
    base = SessionParameters(num_clients=8, threshold=4, length=100, rounds=10, capacity=16)
    changes: dict[str, Any] = {
        "num_clients": 9,
        "threshold": 5,
        "length": 101,
        "rounds": 11,
        "encryption": "direct",
        "value_bits": 15,
        "decryptors": 7,
        "min_contributors": 5,
        "capacity": 17,
        "max_attempts": 5,
    }
    whole = replace(base, threshold=8)
    variants = [base, whole, replace(whole, robust=False)]
    variants += [replace(base, **{name: value}) for name, value in changes.items()]
    assert {field.name for field in fields(base)} == {*changes, "robust"}
    digests = {variant.digest() for variant in variants}
    assert len(digests) == len(variants)
    assert all(len(digest) == hashlib.sha256().digest_size for digest in digests)


def test_equal_parameters_have_equal_digests_however_they_were_given() -> None:
    explicit = SessionParameters(8, 4, 100, 10, True, "hybrid", 16, 8, 4, 8, 4)
    assert explicit.digest() == SessionParameters(8, 4, 100, 10).digest()


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
    with pytest.raises(ParameterError, match="no ring can carry this payload"):
        make_plan(SessionParameters(4096, 2, MAX_LENGTH, MAX_ROUNDS, encryption="direct"))


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
        scaled = scaled_share(ring, session.shares[1], 1, (1, 2))
        share = gen_share(plan, ring, scaled, request, {}, seeded("share"))
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


# -- command line ------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "mphe.parameters", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def printed(text: str) -> list[dict[str, str]]:
    """Return what each plan says, by the name of its line."""
    plans: list[dict[str, str]] = []
    for line in text.splitlines():
        if not line.startswith("  "):
            plans.append({"title": line})
        else:
            plans[-1][line[2:18].strip()] = line[18:]
    return plans


def test_the_module_prints_the_chosen_plan() -> None:
    result = run("--length", str(CNN), "--num_peers", "8", "--threshold", "4")
    assert result.returncode == 0, result.stderr
    plan, lines = make_plan(SessionParameters(8, 4, CNN, 100)), printed(result.stdout)[0]
    assert plan.payload is not None
    assert lines["title"] == (
        f"hybrid: {CNN} values of 16 bits, n = 8, t = 4 of 8 decryptors, "
        "100 rounds of at most 4 attempts"
    )
    # Each ring beside what it is checked against, and its errors.
    assert lines["threshold ring"] == (
        "key: N = 4096, log2 q = 96 (at most 106 at 128 bits), errors σ = 3.24"
    )
    assert lines["payload ring"] == (
        "data: N = 8192, log2 q = 192 (at most 214 at 128 bits), errors σ = 4.53"
    )
    assert f"smudging σ = 2^{log2(plan.smudging):.1f}" in lines["noise"]
    assert f"E = 2^{log2(plan.noise):.1f}" in lines["noise"]
    assert lines["budget"] == f"τ = {plan.budget} decryptions, {plan.answers} a decryptor"
    for name, layout in (("ciphertexts", plan.threshold), ("bodies", plan.payload)):
        assert lines[name].startswith(f"{layout.blocks} a")
        assert f"{layout.slots} slots of {layout.slot_bits} bits" in lines[name]
        assert lines[name].endswith(f"2^{layout.noise_bits}")
    value = plan.upload_bytes / CNN
    assert lines["upload"] == f"{plan.upload_bytes} bytes, {value:.3f} a value"
    assert lines["share"] == f"{plan.share_bytes} bytes"


def test_the_example_in_the_docs_is_what_the_module_prints() -> None:
    docs = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    output = run("--length", str(CNN), "--num_peers", "8", "--threshold", "4").stdout
    chosen = output.partition("\nrunner-up: ")[0]
    command = f"$ python -m mphe.parameters --length {CNN} --num_peers 8 --threshold 4\n"
    assert command + chosen in docs.replace("\n    ", "\n")


def test_the_runners_up_follow_by_their_bytes() -> None:
    session = SessionParameters(8, 4, CNN, 100)
    plans = printed(run("--length", str(CNN)).stdout)
    uploads = [int(plan["upload"].split()[0]) for plan in plans]
    assert uploads == sorted(plan.upload_bytes for plan in candidates(session))
    assert [plan["title"].startswith("runner-up: ") for plan in plans] == [False, True, True, True]


def test_every_flag_of_the_module_reaches_the_plan() -> None:
    flags = (
        "--length 5000 --num_peers 9 --threshold 3 --decryptors 6 --value_bits 12 "
        "--num_iterations 2000 --max_attempts 2 --encryption direct"
    )
    session = SessionParameters(
        9, 3, 5000, 2000, True, "direct", value_bits=12, decryptors=6, max_attempts=2
    )
    plan, lines = make_plan(session), printed(run(*flags.split()).stdout)[0]
    assert lines["title"] == (
        "direct: 5000 values of 12 bits, n = 9, t = 3 of 6 decryptors, "
        "2000 rounds of at most 2 attempts"
    )
    assert plan.budget > MIN_DECRYPTION_BUDGET
    assert lines["budget"].startswith(f"τ = {plan.budget} ")
    assert lines["upload"].startswith(f"{plan.upload_bytes} bytes")
    assert "payload ring" not in lines and "bodies" not in lines


@pytest.mark.parametrize("encryption", ["hybrid", "direct"])
def test_the_printed_failure_is_a_bound_for_all_coefficients(encryption: str) -> None:
    lines = printed(run("--encryption", encryption).stdout)[0]
    plan = make_plan(SessionParameters(8, 4, CNN, 100, encryption=encryption))
    exponent, rest = lines["failure"].removeprefix("below 2^").split(" for ", 1)
    decrypted = int(rest.split()[0])
    confirmed = plan.session.confirmation_attempts * plan.threshold.ring.degree
    assert decrypted == 100 * 4 * plan.threshold.coefficients + confirmed
    # 2·exp(-TAIL²/2) for the noise and for the smudging of each.
    exact = log2(4 * decrypted) - TAIL**2 / 2 / log(2)
    assert exact <= int(exponent) < exact + 1
    assert failure_exponent(decrypted) == pytest.approx(exact, abs=1e-9)
    assert int(exponent) < -FAILURE_EXPONENT


def test_the_module_refuses_what_the_package_refuses() -> None:
    for flags, reason in (
        (["--num_peers", "1"], "1 clients; use 2 to"),
        (["--decryptors", "3"], "threshold 4 with 3 decryptors"),
        (["--max_attempts", "0"], "0 attempts; use 1"),
        (["--encryption", "none"], "invalid choice: 'none'"),
    ):
        result = run(*flags)
        assert result.returncode == 2
        assert reason in result.stderr
        assert "Traceback" not in result.stderr
