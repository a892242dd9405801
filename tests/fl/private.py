"""Private learners without TensorFlow: real clients on models that only pretend to learn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.config.configs import Config
from fl.data.load import Dataset
from fl.learning.build import make_learner
from fl.learning.private_learner import PrivateLearner
from tests.fl.federation import SIZE, FakeTrainer, Real, flags
from tests.support import SeededSystem

SAMPLES = 40


class StubTrainer(FakeTrainer):
    """Every gradient is the same; the sum of clipped ones counts the samples of the batch."""

    value = 0.0

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.batches: list[int] = []

    def gradient(self, x: Any, y: Any) -> tuple[np.ndarray, float, float]:
        return np.full(SIZE, self.value, np.float32), 0.7, 0.6

    def try_alone(self, x: Any, y: Any, norm: float) -> None:
        """Every sample's gradient is its own."""

    def clipped_sum(self, x: Any, y: Any, norm: float) -> np.ndarray:
        self.batches.append(len(y))
        return np.full(SIZE, self.value * len(y))


def data(samples: int = SAMPLES) -> Dataset:
    x, y = np.zeros((samples, 3), np.float32), np.arange(samples) % 2
    return Dataset(name="stub", train_x=x, train_y=y, test_x=x[:2], test_y=y[:2])


def pretend(monkeypatch: pytest.MonkeyPatch, value: float = 0.0) -> None:
    """Let learners find gradients of this value in all coordinates."""
    monkeypatch.setattr("fl.learning.build.Trainer", StubTrainer)
    monkeypatch.setattr("fl.learning.build.load_dataset", lambda name, seed: data())
    monkeypatch.setattr(StubTrainer, "value", value)


def private_flags(directory: Path, *more: str, **options: int) -> Config:
    """Return flags of a short run with dp_epsilon."""
    return flags(directory, "--dp_epsilon", "4", "--resiliency", "0.75", *more, **options)


def learner(args: Config, index: int = 1, label: str = "learner") -> PrivateLearner:
    """Return a private learner on known randomness."""
    made = make_learner(args, index, "stub", system=SeededSystem(f"{label} {index}"))
    assert isinstance(made, PrivateLearner)
    return made


def federation(args: Config, label: str = "federation") -> Real:
    """Return what `tests.fl.federation.run` trains: private learners on known randomness."""
    clients = range(1, args.session.num_clients + 1)
    return Real(SIZE, {index: learner(args, index, label) for index in clients}, data=data())
