"""mphe.plan.plan: the security table, the ranges, and the command line."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from math import log, log2
from pathlib import Path
from typing import Any

import pytest

from mphe.arithmetic.noise import FAILURE_EXPONENT, TAIL, failure_exponent
from mphe.arithmetic.rings import MAX_LOG_Q, RINGS, RingParameters
from mphe.errors import ParameterError
from mphe.plan.agreement import MAX_CLIENTS, MAX_LENGTH, MAX_ROUNDS, SessionParameters
from mphe.plan.plan import (
    MIN_DECRYPTION_BUDGET,
    candidates,
    make_plan,
)
from tests.mphe.support import CNN
from tests.patience import scaled
from tests.support import make_parameters

ROOT = Path(__file__).parents[3]


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
    monkeypatch.setattr("mphe.plan.plan.RINGS", (insecure_ring,))
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
        ({"decryptors": 0}, "0 decryptors"),
        ({"capacity": 0}, "capacity 0"),
        ({"min_contributors": 0}, "min_contributors"),
        ({"num_clients": None}, "num_clients must be of type int"),
        ({"robust": None}, "robust must be of type bool"),
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
    assert (session.decryptors, session.capacity, session.min_contributors) == (8, 8, 5)
    assert session.max_attempts == 8


@pytest.mark.parametrize(
    ("n", "t", "minimum"), [(2, 2, 2), (3, 2, 2), (3, 3, 2), (4, 2, 3), (4, 3, 3), (4, 4, 3)]
)
def test_a_sum_holds_two_updates_beside_t_minus_1_but_never_needs_everybody(
    n: int, t: int, minimum: int
) -> None:
    assert SessionParameters(n, t, 10, 1).min_contributors == minimum


def test_the_digest_differs_when_any_field_differs() -> None:
    base = SessionParameters(8, 5, 100, 10, capacity=16, min_contributors=4)
    changes: dict[str, Any] = {
        "num_clients": 9,
        "threshold": 6,
        "length": 101,
        "rounds": 11,
        "encryption": "direct",
        "value_bits": 15,
        "decryptors": 7,
        "min_contributors": 7,
        "capacity": 17,
        "max_attempts": 5,
        "verified": True,
        "max_groups": 2,
    }
    whole = replace(base, threshold=8)
    variants = [base, whole, replace(whole, robust=False)]
    variants += [replace(base, **{name: value}) for name, value in changes.items()]
    variants.append(replace(base, verified=True, max_corrupt=1))
    assert {field.name for field in fields(base)} == {*changes, "robust", "max_corrupt"}
    digests = {make_plan(variant).digest for variant in variants}
    assert len(digests) == len(variants)
    assert all(len(digest) == hashlib.sha256().digest_size for digest in digests)


def test_equal_parameters_have_equal_digests_however_they_were_given() -> None:
    explicit = SessionParameters(8, 4, 100, 10, True, "hybrid", 16, 8, 5, 8, 8, False, 0)
    assert make_plan(explicit).digest == make_plan(SessionParameters(8, 4, 100, 10)).digest
    verified = SessionParameters(8, 6, 100, 10, True, "hybrid", 16, 8, 5, 8, 8, True, 3)
    default = SessionParameters(8, 6, 100, 10, verified=True)
    assert make_plan(verified).digest == make_plan(default).digest


def test_two_planners_that_differ_have_different_digests() -> None:
    plan = make_plan(SessionParameters(8, 5, 100, 10))
    assert plan.payload is not None
    other_ring = replace(plan.threshold.ring, subtrahend=5)
    changes: list[dict[str, Any]] = [
        {"threshold": replace(plan.threshold, noise_bits=plan.threshold.noise_bits + 1)},
        {"threshold": replace(plan.threshold, slots=plan.threshold.slots + 1)},
        {"threshold": replace(plan.threshold, ring=other_ring)},
        {"payload": replace(plan.payload, noise_bits=plan.payload.noise_bits - 1)},
        {"payload": None},
        {"budget": plan.budget + 1},
        {"noise": plan.noise * 1.01},
        {"smudging": plan.smudging * 1.01},
        {"dropped_c0": plan.dropped_c0 + 1},
        {"dropped_share": plan.dropped_share - 1},
        {"dropped_body": plan.dropped_body + 1},
    ]
    plans = [plan, *(replace(plan, **change) for change in changes)]
    assert len({plan.digest for plan in plans}) == len(plans)
    named = {name for change in changes for name in change}
    assert {field.name for field in fields(plan)} == {*named, "session"}


def test_the_last_bits_of_a_logarithm_do_not_enter_the_digest() -> None:
    plan = make_plan(SessionParameters(8, 5, 100, 10))
    near = replace(plan, smudging=plan.smudging * (1 + 1e-12), noise=plan.noise * (1 - 1e-12))
    assert near.digest == plan.digest


# -- verified aggregates -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "corrupt", "minimum"),
    [
        # n, t, k: the largest c with 2t > k + c that leaves two honest clients.
        ((3, 2, 3), 0, 3),
        ((3, 3, 3), 1, 3),
        ((4, 3, 4), 1, 3),
        ((4, 4, 4), 2, 4),
        ((8, 5, 8), 1, 3),
        ((8, 6, 8), 3, 5),
        ((8, 8, 8), 6, 8),
        ((100, 4, 5), 2, 4),
    ],
)
def test_as_many_may_be_corrupt_as_the_threshold_withstands(
    fields: tuple[int, int, int], corrupt: int, minimum: int
) -> None:
    n, t, k = fields
    session = SessionParameters(n, t, 100, 10, decryptors=k, verified=True)
    assert (session.max_corrupt, session.min_contributors) == (corrupt, minimum)
    # Two groups of t decryptors have more than c members in common.
    assert 2 * t - k > corrupt
    assert corrupt + 2 <= minimum
    with pytest.raises(ParameterError, match=r"cannot withstand|hides too little"):
        SessionParameters(n, t, 100, 10, decryptors=k, verified=True, max_corrupt=corrupt + 1)


@pytest.mark.parametrize("k", [3, 4, 7, 8])
def test_two_quorums_have_an_honest_decryptor_in_common(k: int) -> None:
    for t in range(2, k + 1):
        for c in range(k + 1):
            fields = {"decryptors": k, "min_contributors": 20, "max_corrupt": c}
            if 2 * t > k + c:
                SessionParameters(20, t, 100, 10, verified=True, **fields)  # type: ignore[arg-type]
                continue
            with pytest.raises(ParameterError, match=f"{t} of {k} decryptors cannot withstand"):
                SessionParameters(20, t, 100, 10, verified=True, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 4}, r"4 of 8 decryptors cannot withstand.*use t above 4"),
        ({"threshold": 5, "max_corrupt": 2}, r"2 corrupt clients.*use t above 5"),
        ({"max_corrupt": -2}, "6 of 8 decryptors cannot withstand"),
        ({"max_corrupt": 3, "min_contributors": 4}, "use min_contributors 5 or more of 8"),
        ({"min_contributors": 2}, "a sum of 2 updates, 3 of them corrupt, hides too little"),
        ({"max_corrupt": 1.0}, "max_corrupt must be of type int"),
        ({"verified": 1}, "verified must be of type bool"),
    ],
    ids=str,
)
def test_a_verified_session_that_a_lying_server_could_break_is_refused(
    change: dict[str, Any], message: str
) -> None:
    good: dict[str, Any] = {
        **{"num_clients": 8, "threshold": 6, "length": 100, "rounds": 10},
        "verified": True,
    }
    SessionParameters(**good)
    with pytest.raises(ParameterError, match=message):
        SessionParameters(**(good | change))


def test_without_verified_aggregates_nobody_is_corrupt() -> None:
    session = SessionParameters(8, 4, 100, 10)
    assert (session.verified, session.max_corrupt) == (False, 0)
    assert SessionParameters(8, 8, 100, 10).max_corrupt == 0


# -- command line ------------------------------------------------------------------------------


def run(
    *arguments: str, spelling: Sequence[str] = ("mphe", "plan")
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", *spelling, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scaled(60))


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
        "100 rounds of at most 8 attempts"
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


def test_the_old_spelling_prints_the_same() -> None:
    arguments = ("--length", "100", "--num_peers", "3", "--threshold", "2")
    new, old = run(*arguments), run(*arguments, spelling=["mphe.parameters"])
    assert new.returncode == old.returncode == 0 and new.stdout == old.stdout != ""


def test_a_reader_that_stops_reading_is_no_error() -> None:
    """What `python -m mphe plan | head -1` does."""
    words = (
        f"{sys.executable} -W error -m mphe plan --length 100 --num_peers 3 --threshold 2 | true"
    )
    done = subprocess.run(
        words, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=scaled(60)
    )
    assert done.stderr == ""


def test_the_example_in_the_docs_is_what_the_module_prints() -> None:
    docs = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    output = run("--length", str(CNN), "--num_peers", "8", "--threshold", "4").stdout
    chosen = output.partition("\nrunner-up: ")[0]
    command = f"$ python -m mphe plan --length {CNN} --num_peers 8 --threshold 4\n"
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


def test_the_flags_of_verified_aggregates_reach_the_plan() -> None:
    for corrupt in (None, 0):
        session = SessionParameters(8, 6, 5000, 100, verified=True, max_corrupt=corrupt)
        plan = make_plan(session)
        given = [] if corrupt is None else ["--max_corrupt", str(corrupt)]
        flags = "--length 5000 --threshold 6 --verify_aggregate"
        lines = printed(run(*flags.split(), *given).stdout)[0]
        assert lines["proofs"] == f"{plan.proof_bytes} bytes of the upload"
        assert lines["upload"].startswith(f"{plan.upload_bytes} bytes")
        assert f"E = 2^{log2(plan.noise):.1f}" in lines["noise"]
    assert "proofs" not in printed(run("--length", "5000").stdout)[0]
    refused = run("--verify_aggregate")
    assert refused.returncode == 2
    assert "4 of 8 decryptors cannot withstand a lying server" in refused.stderr


@pytest.mark.parametrize("encryption", ["hybrid", "direct"])
def test_the_printed_failure_is_a_bound_for_all_coefficients(encryption: str) -> None:
    lines = printed(run("--encryption", encryption).stdout)[0]
    plan = make_plan(SessionParameters(8, 4, CNN, 100, encryption=encryption))
    exponent, rest = lines["failure"].removeprefix("below 2^").split(" for ", 1)
    decrypted = int(rest.split()[0])
    confirmed = plan.session.confirmation_attempts * plan.threshold.ring.degree
    assert decrypted == 100 * 8 * plan.threshold.coefficients + confirmed
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
