"""A model so small that a round takes milliseconds, whose every step can be checked by hand.

What metrics.jsonl calls accuracy and loss are two weights: they show the sum of every round.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fl.learning.learner
import fl.run.client
import fl.run.server
from fl.config.configs import Config
from fl.learning.pending import PendingUpdates
from fl.schemes.scheme import codec_for
from mphe.update import Counts

SIZE = 12
LEARNING_RATE = 0.1


def update_of(index: int, round: int) -> np.ndarray:
    """Return what client `index` finds in a round, float32 (SIZE,) in 0.2..0.8."""
    rng = np.random.default_rng([index, round])
    return rng.uniform(0.2, 0.8, SIZE).astype(np.float32)


class SmallTrainer:
    """Weights without a network."""

    has_classes = True

    def __init__(self, seed: int, model: str, data: Any) -> None:
        self.size = SIZE
        self._weights = np.zeros(SIZE, np.float32)

    def get_vector(self) -> np.ndarray:
        return self._weights.copy()

    def set_vector(self, vector: np.ndarray) -> None:
        self._weights = vector.copy()

    def describe(self) -> str:
        return f"model: {SIZE} numbers"

    def evaluate(self, _x: Any, _y: Any) -> tuple[float, float]:
        return float(self._weights[0]), float(self._weights[1])

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, self._weights)


class SmallLearner(fl.learning.learner.Learner):
    """Finds `update_of`, after `pause` seconds."""

    pause = 0.0

    def __init__(self, config: Config, index: int) -> None:
        self.size = SIZE
        self._config = config.learning
        self._index = index
        self._pending = PendingUpdates()
        self._unsent = None
        self.codec = codec_for(config.codec, SIZE)

    def update(self, round: int, model: Any) -> tuple[np.ndarray, Counts]:
        time.sleep(self.pause)
        return update_of(self._index, round), Counts(float(self._index))


def small_learner(config: Config, index: int, dataset: str, own_data: bool = False) -> SmallLearner:
    return SmallLearner(config, index)


def install(pause: float) -> None:
    """Let server and clients of this process use the small model."""
    SmallLearner.pause = pause
    fl.run.client.make_learner = small_learner  # type: ignore[attr-defined, assignment]
    fl.run.server.Trainer = SmallTrainer  # type: ignore[attr-defined, assignment]


def wrong_rounds(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rounds that did not add exactly the updates of the contributors they name."""
    wrong, weights = [], np.zeros(2)
    for record in records:
        names = record["contributors"]
        step = [update_of(index, record["round"])[:2] for index in names]
        expected = weights - LEARNING_RATE * np.mean(step, axis=0) if names else weights
        summed = record["abandoned"] is None
        # What an abandoned round left is seen with the next one.
        seen = np.array([record["accuracy"], record["loss"]]) if summed else weights
        # Quantised to 16 bits; another set of contributors is off by a hundred times as much.
        if bool(names) != summed or not np.allclose(seen, expected, rtol=0, atol=1e-4):
            wrong.append(record)
        weights = seen  # so that rounding does not add up
    return wrong


def assert_sums(records: Sequence[Mapping[str, Any]]) -> None:
    """Every round added exactly the updates of the contributors that it names."""
    assert wrong_rounds(records) == []
