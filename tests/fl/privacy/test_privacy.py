"""What flags of differential privacy promise, and what the user is told."""

from pathlib import Path

import numpy as np
import pytest

from fl.privacy.privacy import PrivacyError, describe
from tests.fl.federation import flags, privacy_of
from tests.fl.private import private_flags

LABELS = np.arange(400) % 10


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--value_bits 6", "raise --value_bits"),
        ("--value_bits 8 --dp_unit client", "does not fit 8 bits"),
        ("--dp_noise_multiplier 0.1 --dp_unit client", "costs more than --dp_epsilon 4"),
        ("--dp_epsilon 30 --dp_delta 1e-15", "cannot both be promised"),
    ],
)
def test_what_cannot_be_protected_gets_one_line(tmp_path: Path, words: str, hint: str) -> None:
    args = private_flags(tmp_path, *words.split())
    with pytest.raises(PrivacyError) as caught:
        privacy_of(args, 5000, LABELS)
    assert hint in str(caught.value) and "\n" not in str(caught.value)


def test_parameters_follow_the_flags(tmp_path: Path) -> None:
    args = private_flags(tmp_path, "--batch_size_per_worker", "25", "--clip_norm", "0.5")
    plan = privacy_of(args, 1000, LABELS)
    assert plan is not None
    assert (plan.sampling_rate, plan.sensitivity, plan.honest) == (0.25, 0.5 / 25, 2)
    assert plan.budget.rounds >= args.rounds.rounds
    assert plan.budget.spent(args.rounds.rounds) <= 4
    more = private_flags(tmp_path, "--dp_unit", "client", "--dp_colluding", "2")
    plan = privacy_of(more, 1000, None)
    assert plan is not None
    assert (plan.sampling_rate, plan.sensitivity, plan.honest) == (1, 3.0, 1)
    assert privacy_of(flags(tmp_path), 1000, LABELS) is None


def test_disjoint_groups_cost_what_one_sum_costs_and_their_size_decides_the_noise(
    tmp_path: Path,
) -> None:
    """A unit is in one group of a round, and each has min_contributors whose noise is in it."""
    words = ["--min_contributors", "3", "--dp_colluding", "1"]
    whole, split = (
        privacy_of(private_flags(tmp_path, *words, *more, peers=9), 1000, LABELS)
        for more in ([], ["--max_groups", "3"])
    )
    assert split is not None and split == whole
    assert split.honest == 3 - 1


def test_the_rate_is_that_of_the_client_with_the_fewest_samples(tmp_path: Path) -> None:
    args = private_flags(tmp_path, "--partition", "dirichlet:0.3", "--batch_size_per_worker", "10")
    plan = privacy_of(args, 10, LABELS)
    assert plan is not None and plan.sampling_rate > 10 / 100
    words = ["--partition", "dirichlet:0.3", "--batch_size_per_worker", "500"]
    whole = private_flags(tmp_path, *words)
    plan = privacy_of(whole, 10, LABELS)
    assert plan is not None and plan.sampling_rate == 1
    with pytest.raises(PrivacyError, match="own data"):
        privacy_of(args, 10, None)


def test_the_user_sees_what_is_promised_and_when_bits_are_too_few(tmp_path: Path) -> None:
    words = ["--batch_size_per_worker", "25", "--value_bits"]
    args = private_flags(tmp_path, *words, "12")
    plan = privacy_of(args, 3000, LABELS)
    assert plan is not None and args.privacy is not None
    first, second = describe(args.privacy, args.codec, plan)
    assert "(4, 1e-05)-differential privacy of each sample" in first
    assert "1 of 3 contributors collude" in first and "batches of rate 0.25" in first
    assert "--value_bits 20" in second
    finer = private_flags(tmp_path, *words, "20")
    plan = privacy_of(finer, 3000, LABELS)
    assert plan is not None and finer.privacy is not None
    assert len(describe(finer.privacy, finer.codec, plan)) == 1
