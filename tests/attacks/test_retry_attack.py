"""Retries must not add up to a hidden-number problem.

Source: Okada et al. 2025/409 on threshold decryption with several active sets; Lattigo's
SECURITY.md warns of it. Without masks a decryptor that answers for the same c1 under different
sets D hands out λ_D·x + noise for every coefficient x of s_j·c1. The λ_D are public, so (λ_D·x)
is a point of a known lattice close to the answers, and LLL with Babai's nearest plane finds it.
That is x itself, exactly, although each answer hides it under noise of 2^66: smudging is gone.

Claim: with the zero-sharing masks each answer is uniform unless all of D answer, and
the same lattice finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import flint
import pytest

from mphe.arithmetic.ring import Element, Limbs, Ring
from mphe.arithmetic.rings import KEY_RING
from mphe.arithmetic.sampling import derive_seed, ternary, uniform
from mphe.plan.agreement import SessionParameters
from mphe.plan.plan import make_plan
from mphe.roles.rounds.decryptor import Decryptor, Memory
from mphe.roles.setup.common import SessionKeys
from mphe.scheme import decryption, sharing
from mphe.scheme.rlwe import CollectiveKey
from mphe.wire.messages import DecryptionRequest, DecryptionShare, Group
from tests.simulation import SeededSource, integers

# Enough decryptors for the λ_D to be numbers without structure. With few, λ_D = p/r for small p and
# r, and x + lcm(r)·k explains the same answers for |k| < σ/p: then x is narrowed down, not found
# (n = 40 is still too few at σ = 2^63).
N, T, J = 100, 50, 3
COEFFICIENTS = 6

plain_gen_share = decryption.gen_share


def insecure_gen_share_without_masks(*args: Any) -> bytes:
    """Answer without the zero-sharing masks."""
    plan, ring, scaled, request, _, source = args
    no_masks: Mapping[int, tuple[int, bytes]] = {}
    return plain_gen_share(plan, ring, scaled, request, no_masks, source)


def sets_with(count: int) -> list[tuple[int, ...]]:
    """Return different active sets that contain J, as after several drop-outs."""
    source = SeededSource("who drops out")
    sets = []
    for _ in range(count):
        order = sorted((source.bytes(8), i) for i in range(1, N + 1) if i != J)
        sets.append(tuple(sorted([J, *(i for _, i in order[: T - 1])])))
    return sets


def reduce_and_round(basis: list[list[int]], target: list[int]) -> list[int]:
    """Return the lattice point that LLL and Babai's nearest plane find near the target."""
    reduced = flint.fmpz_mat(basis).lll().tolist()
    rows = [[int(v) for v in row] for row in reduced if any(row)]
    orthogonal: list[list[flint.fmpq]] = []
    for row in rows:
        rest = [flint.fmpq(v) for v in row]
        for other in orthogonal:
            factor = dot(row, other) / dot(other, other)
            rest = [a - factor * b for a, b in zip(rest, other, strict=True)]
        orthogonal.append(rest)
    left = list(target)
    for row, other in zip(reversed(rows), reversed(orthogonal), strict=True):
        nearest = int((dot(left, other) / dot(other, other) + flint.fmpq(1, 2)).floor())
        left = [a - nearest * b for a, b in zip(left, row, strict=True)]
    return [a - b for a, b in zip(target, left, strict=True)]


def dot(left: list[Any], right: list[Any]) -> flint.fmpq:
    """Return the inner product."""
    return sum((flint.fmpq(a) * b for a, b in zip(left, right, strict=True)), flint.fmpq(0))


def hidden_number(factors: list[int], answers: list[int], modulus: int) -> int:
    """Return x from answers factor·x + noise mod q."""
    count = len(factors)
    basis = [[modulus * (row == column) for column in range(count)] for row in range(count)]
    point = reduce_and_round([*basis, factors], answers)
    return point[0] * pow(factors[0], -1, modulus) % modulus


@lru_cache
def decryptor_and_products() -> tuple[SessionKeys, bytes, list[int]]:
    """Return decryptor J of a session, a c1, and the coefficients of s_J·c1 that are hidden."""
    plan = make_plan(SessionParameters(N, T, 60, 50, max_attempts=6))
    assert plan.threshold.ring is KEY_RING
    ring, source = Ring(KEY_RING), SeededSource("retry attack")
    secret = ring.from_small(ternary(source, ring.degree))
    share: Element = sharing.gen_shares(ring, secret, T, [J], source)[J]
    everybody = tuple(range(1, N + 1))
    key = CollectiveKey(ring, ring.zero(), ring.zero())
    masks = {i: derive_seed("key", i.to_bytes(4, "big")) for i in everybody if i != J}
    keys = SessionKeys(J, plan, bytes(32), bytes(32), everybody, key, share, masks, {})
    c1 = uniform(source, ring)
    hidden = ring.reduce(ring.multiply(ring.spectrum(share, 16), ring.spectrum(c1, 16)))
    return (
        keys,
        ring.to_bytes(c1) * plan.threshold.blocks,
        integers(hidden[:, :COEFFICIENTS]),
    )


def attack(retries: int) -> list[bool]:
    """Ask one decryptor for one aggregate under several sets; return which x were recovered."""
    keys, c1, hidden = decryptor_and_products()
    ring, plan = Ring(KEY_RING), keys.plan
    opened = Memory(confirming=False)
    decryptor = Decryptor(keys, SeededSource("smudging"), memory=opened)
    factors, answers = [], []
    for attempt, active in enumerate(sets_with(retries), 1):
        groups = (Group(tuple(range(1, N + 1)), c1),)
        request = DecryptionRequest(1, attempt, active, groups, transcript=keys.transcript)
        message = decryptor.receive(0, request)[0].message  # type: ignore[union-attr]
        assert isinstance(message, DecryptionShare)
        (block,) = decryption.read_blocks(ring, plan.threshold, message.share, plan.dropped_share)[
            :1
        ]
        factors.append(sharing.lagrange_coefficient(ring.modulus, J, active))
        answers.append(integers(Element(Limbs(block[:, :COEFFICIENTS]))))
    return [
        hidden_number(factors, [answer[i] for answer in answers], ring.modulus) == hidden[i]
        for i in range(COEFFICIENTS)
    ]


@pytest.mark.parametrize("retries", [4, 5, 6])
def test_without_masks_the_hidden_product_is_recovered_exactly(
    retries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decryption, "gen_share", insecure_gen_share_without_masks)
    assert attack(retries) == [True] * COEFFICIENTS


@pytest.mark.parametrize("retries", [4, 5, 6])
def test_with_masks_nothing_is_recovered(retries: int) -> None:
    assert attack(retries) == [False] * COEFFICIENTS


def test_one_answer_without_masks_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decryption, "gen_share", insecure_gen_share_without_masks)
    assert attack(1) == [False] * COEFFICIENTS
