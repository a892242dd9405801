"""Membership: was this client's update in the sums?

Source: Dwork and Roth 2014, and Kasiviswanathan and Smith 2014: whoever guesses between two
neighbours under (ε, δ)-differential privacy has true positives minus false positives of at most
(e^ε - 1 + 2δ)/(e^ε + 1). The adversary is as strong as the definition allows: it knows all updates,
the noise of the colluding client, the range and the rounding, and lacks two clients' noise. Claim:
`Privacy` keeps it within the bound when all that may drop out do. Weakened: no noise; noise that
counts on all 200 clients.
"""

from dataclasses import replace
from math import exp, sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np

from fl.privacy.privacy import Privacy
from mphe.update import PrivateUpdateCodec, PublicRange
from mphe.update.quantise import NO_COUNTS, quantise
from mphe.update.streams import Stream, generator
from tests.fl.federation import flags, privacy_of
from tests.support import hedged

SIZE, ROUNDS, TRIALS, PUBLIC = 30, 4, 400, PublicRange(1.0)
EPSILON, DELTA = 1.0, 1e-5
BOUND = (exp(EPSILON) - 1 + 2 * DELTA) / (exp(EPSILON) + 1)
# 400 trials of each kind: a difference of two frequencies is right to 0.035 (one deviation).
MARGIN = 4 * (0.5 / TRIALS) ** 0.5


def parameters(directory: Path) -> Privacy:
    """Return what the flags of a run with 200 clients, any 3 of whom make a sum, ask for."""
    words = f"--dp_epsilon {EPSILON} --dp_unit client --clip_norm 1 --min_contributors 3"
    args = flags(directory, *words.split(), "--num_iterations", str(ROUNDS), peers=200)
    plan = privacy_of(args, SIZE, None)
    assert plan is not None and plan.honest == 2
    return plan


def statistics(plan: Privacy, noise: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return the best statistic, in units of what the unit moves, of members and of others."""
    codec = PrivateUpdateCodec(
        SIZE,
        plan.bits,
        plan.sensitivity,
        noise_multiplier=plan.noise_multiplier,
        honest=plan.honest,
        hedge=hedged("membership"),
    )
    largest = codec.grid(PUBLIC.clip_range).largest
    update = np.full(SIZE, SIZE**-0.5)

    def rounded(values: np.ndarray, round: int) -> np.ndarray:
        rng = generator(Stream.ROUNDING, 0, 1, round)
        return quantise(values, largest, plan.bits, NO_COUNTS, rng)[:SIZE].astype(np.int64)

    def integers(values: np.ndarray, round: int) -> np.ndarray:
        if not noise:
            return rounded(values, round)
        encoded = codec.encode(values, PUBLIC, seed=0, index=1, round=round)
        return encoded[:SIZE].astype(np.int64)

    def statistic(member: bool) -> float:
        total = 0.0
        for round in range(ROUNDS):
            # Two clients whose noise nobody knows: the one in question, and one that adds nothing.
            sums = integers(update * member, round) + integers(0 * update, round)
            zero = rounded(0 * update, round)
            moved = (rounded(update, round) - zero).astype(np.float64)
            # The likelihood ratio of equal Gaussians is a projection on what the unit moves.
            total += float((sums - 2 * zero) @ moved / (moved @ moved))
        return float(total / ROUNDS)

    members, others = ([statistic(member) for _ in range(TRIALS)] for member in (True, False))
    return np.array(members), np.array(others)


def advantage(plan: Privacy, noise: bool = True) -> float:
    """Return true positives minus false positives of the best guess from all sums."""
    members, others = statistics(plan, noise)
    return float(np.mean(members > 0.5) - np.mean(others > 0.5))


def noise_multiplier(plan: Privacy) -> float:
    """Return the noise of one sum that the adversary is left with, over what the unit moves."""
    return float(np.std([kind - kind.mean() for kind in statistics(plan)]) * sqrt(ROUNDS))


def test_noise_keeps_the_best_guess_within_its_bound(tmp_path: Path) -> None:
    found = advantage(parameters(tmp_path))
    assert found <= BOUND + MARGIN
    # And it is what the best test of two Gaussians finds, which is less.
    expected = 2 * NormalDist().cdf(ROUNDS**0.5 / parameters(tmp_path).noise_multiplier / 2) - 1
    assert abs(found - expected) < MARGIN


def test_the_adversary_is_left_with_the_promised_noise(tmp_path: Path) -> None:
    """800 trials: the deviation is right to 2.5 % (one deviation)."""
    plan = parameters(tmp_path)
    promised = 0.9 * plan.noise_multiplier
    assert noise_multiplier(plan) > promised
    # Counting on two honest clients more would be noticed.
    assert noise_multiplier(replace(plan, honest=4)) < promised


def test_noise_that_counts_on_all_clients_does_not(tmp_path: Path) -> None:
    assert advantage(replace(parameters(tmp_path), honest=199)) > BOUND + MARGIN


def test_without_noise_membership_is_certain(tmp_path: Path) -> None:
    assert advantage(parameters(tmp_path), noise=False) == 1.0
