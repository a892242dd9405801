"""Rounds: messages that parse and are wrong lead to no published sum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mphe.arithmetic.noise import KEY_PAIRS
from mphe.arithmetic.ring import Small
from mphe.arithmetic.sampling import RandomSource
from mphe.roles.rounds.outcomes import Abandoned, Summed
from mphe.scheme.onetime import OneTimeCipher
from mphe.wire.messages import Contribution, DecryptionShare
from tests.protocol.support import MODES, assert_exact, ready
from tests.simulation import altering


@pytest.mark.parametrize(("n", "t", "attempts"), [(2, 2, 1), (4, 2, 2), (4, 3, 4), (5, 4, 5)])
def test_forged_one_time_key_is_found_and_never_published(n: int, t: int, attempts: int) -> None:
    """Others are asked until no decryptor was asked each time, or nobody else is left."""
    simulation = ready(n, t)
    updates = simulation.random_updates()
    other = simulation.contribution(1, 1, updates[1])
    simulation.intercept = altering(Contribution, lambda m: replace(m, body=other.body), sender=1)
    end = simulation.run_round(updates)
    assert isinstance(end, Abandoned) and "forged" in end.reason
    assert end.attempts == attempts
    simulation.intercept = None
    after = simulation.run_round(updates)
    assert isinstance(after, Summed) and len(after.contributors) >= max(2, t)
    assert_exact(after, updates, *after.contributors)


def test_forged_share_costs_one_attempt_when_another_set_is_honest() -> None:
    simulation = ready(4, 2)
    updates = simulation.random_updates()
    simulation.intercept = altering(
        DecryptionShare, lambda m: replace(m, share=bytes(len(m.share))), sender=1
    )
    end = simulation.run_round(updates)
    assert_exact(end, updates, 1, 2, 3, 4)
    assert isinstance(end, Summed) and end.attempts == 2


@pytest.mark.parametrize("mode", MODES)
def test_forged_shares_never_lead_to_a_published_sum(mode: str) -> None:
    simulation = ready(3, 3, encryption=mode)
    simulation.intercept = altering(
        DecryptionShare, lambda m: replace(m, share=bytes(len(m.share))), sender=1
    )
    assert isinstance(simulation.run_round(simulation.random_updates()), Abandoned)


# -- each range check by itself --------------------------------------------------------------------


def test_error_of_a_body_out_of_range_is_found_although_the_values_are_right() -> None:
    simulation = ready(3, 2)
    updates = simulation.random_updates()
    made = {i: simulation.contribution(i, 1, updates[i]) for i in updates}
    payload = simulation.plan.payload
    assert payload is not None
    shares = [simulation.read_share(s) for s in simulation.ask(simulation.request(made)).values()]
    for shift, plausible in ((0, True), (payload.noise_bits - 3, False)):
        adding = simulation.adding(made)
        forged = adding.parse(made[1])
        for block in forged.c0 + forged.c1 + forged.body:
            block[:] = 0
        forged.body[0][0, 5] = 1 << shift
        adding.add(forged)
        assert (adding.recover(shares, 3) is not None) is plausible


@pytest.mark.parametrize(("largest", "accepted"), [(3 * KEY_PAIRS, True), (128, False)])
def test_one_time_key_out_of_range_is_found_although_its_body_matches(
    largest: int, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = ready(3, 2)
    updates = simulation.random_updates()
    honest_key = OneTimeCipher.gen_key
    drawn = iter([0, 0, largest])

    def insecure_chosen_key(cipher: OneTimeCipher, source: RandomSource) -> Small:
        key = honest_key(cipher, source)
        key[7] = next(drawn)
        return key

    monkeypatch.setattr(OneTimeCipher, "gen_key", insecure_chosen_key)
    made = {i: simulation.contribution(i, 1, updates[i]) for i in updates}
    total = simulation.decrypt(made, simulation.request(made))
    assert (total is not None) is accepted


@pytest.mark.parametrize(
    ("value", "accepted"), [(3 * 65535, True), (3 * 65535 + 1, False), (1 << 22, False)]
)
def test_sum_that_no_honest_clients_can_have_is_not_published(value: int, accepted: bool) -> None:
    """Direct mode: one slot too large; and bits above the last slot."""
    simulation = ready(3, 2, encryption="direct")
    layout = simulation.plan.threshold
    assert layout.slots == 1 and layout.slot_bits == 18
    made = {i: simulation.contribution(i, 1, np.zeros(60, np.int64)) for i in (1, 2, 3)}
    shares = [simulation.read_share(s) for s in simulation.ask(simulation.request(made)).values()]
    adding = simulation.adding(made)
    forged = adding.parse(made[1])
    for block in forged.c0 + forged.c1:
        block[:] = 0
    for limb in range(3):
        forged.c0[0][limb, 5] = (value << layout.noise_bits) >> 32 * limb & 0xFFFFFFFF
    adding.add(forged)
    total = adding.recover(shares, 3)
    assert (total is not None) is accepted
    assert total is None or total[5] == value
