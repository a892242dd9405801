"""What flags of differential privacy promise, and what the user is told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl.config.flags import UsageError
from fl.privacy.privacy import describe, make_privacy
from tests.fl.federation import flags
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
    with pytest.raises(UsageError) as caught:
        make_privacy(args, 5000, LABELS)
    assert hint in str(caught.value) and "\n" not in str(caught.value)


def test_parameters_follow_the_flags(tmp_path: Path) -> None:
    args = private_flags(tmp_path, "--batch_size_per_worker", "25", "--clip_norm", "0.5")
    plan = make_privacy(args, 1000, LABELS)
    assert plan is not None
    assert (plan.sampling_rate, plan.sensitivity, plan.honest) == (0.25, 0.5 / 25, 2)
    assert plan.budget.rounds >= args.num_iterations
    assert plan.budget.spent(args.num_iterations) <= 4
    more = private_flags(tmp_path, "--dp_unit", "client", "--dp_colluding", "2")
    plan = make_privacy(more, 1000, None)
    assert plan is not None
    assert (plan.sampling_rate, plan.sensitivity, plan.honest) == (1, 3.0, 1)
    assert make_privacy(flags(tmp_path), 1000, LABELS) is None


def test_the_rate_is_that_of_the_client_with_the_fewest_samples(tmp_path: Path) -> None:
    args = private_flags(tmp_path, "--partition", "dirichlet:0.3", "--batch_size_per_worker", "10")
    plan = make_privacy(args, 10, LABELS)
    assert plan is not None and plan.sampling_rate > 10 / 100
    whole = replace(args, batch_size_per_worker=500)
    plan = make_privacy(whole, 10, LABELS)
    assert plan is not None and plan.sampling_rate == 1
    with pytest.raises(UsageError, match="own data"):
        make_privacy(args, 10, None)


def test_the_user_sees_what_is_promised_and_when_bits_are_too_few(tmp_path: Path) -> None:
    args = private_flags(tmp_path, "--batch_size_per_worker", "25", "--value_bits", "12")
    plan = make_privacy(args, 3000, LABELS)
    assert plan is not None
    first, second = describe(args, plan)
    assert "(4, 1e-05)-differential privacy of each sample" in first
    assert "1 of 3 contributors collude" in first and "batches of rate 0.25" in first
    assert "--value_bits 20" in second
    finer = replace(args, value_bits=20)
    plan = make_privacy(finer, 3000, LABELS)
    assert plan is not None and len(describe(finer, plan)) == 1
