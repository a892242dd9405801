"""Sums that honest clients cannot have: the model does not step by them, and the run says why."""

from pathlib import Path

import numpy as np
import pytest

from fl.config.configs import Config
from fl.model.round_model import RoundModel
from mphe.update import Counts
from tests.fl.federation import FakeLearner, Real, expected_weights, flags, run

LIAR, ROUND = 4, 2


class Poisoner(FakeLearner):
    """Sends in one round an update that nobody clips."""

    def update(self, round: int, model: RoundModel) -> tuple[np.ndarray, Counts]:
        update, counts = super().update(round, model)
        return (update * 1000 if round == ROUND else update), counts


def poisoned(args: Config) -> Real:
    return Real(learners={LIAR: Poisoner(args, LIAR, lambda index, round: None)})


@pytest.mark.parametrize("how", ["hybrid", "plain", "samples"])
def test_an_implausible_round_changes_nothing_and_says_why(tmp_path: Path, how: str) -> None:
    words = {"plain": ["--aggregation", "plain"], "samples": ["--weighting", "samples"]}
    args = flags(tmp_path, *words.get(how, []))
    outcome = run(args, real=poisoned(args))
    first, second, third = outcome.history.records
    assert (first.abandoned, third.abandoned) == (None, None)
    assert second.abandoned is not None
    assert "the mean update has norm" in second.abandoned
    counted = [first.contributors, (), third.contributors]
    assert first.contributors == (1, 2, 3, 4)
    assert np.allclose(outcome.weights, expected_weights(args, counted), atol=1e-4)
