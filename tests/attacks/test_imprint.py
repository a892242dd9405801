"""Attack: the server plants weights in the one model that everybody sees, and reads the data.

Source: Fowl et al., arXiv 2110.13057. All units of the first layer measure the brightness of an
image and differ in their bias only, so unit k is active for the images above the k-th threshold,
and the difference of two units' gradients holds the images between two thresholds. Divided by the
difference of the biases' gradients it is the image, when there is only one. Sums change nothing:
the gradients of all clients add up to those of one large batch. No client is corrupt, and no
decryptor refuses anything.
Claim: with differential privacy no image is seen.
Weakened: aggregates are verified, which says nothing of the model, and there is no noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.config.configs import Config
from fl.data.load import Dataset, load_dataset
from fl.data.partition import batch
from fl.learning.build import make_learner
from fl.learning.learner import Learner
from fl.model.round_model import RoundModel
from mphe import Summed
from tests.fl.federation import flags
from tests.fl.perceptron import Perceptron
from tests.simulation import Simulation
from tests.support import seeded

CLIENTS, UNITS, BATCH, ALIKE = 4, 512, 16, 0.95
SMALL = 1e-3
"""Scale of the planted weights: the logits stay near 0, whatever the image."""


def images(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1).astype(np.float64)


def planted(model: Perceptron, public: np.ndarray) -> np.ndarray:
    """Return weights that sort images into bins of equal probability by their brightness."""
    (first, thresholds), (second, logits) = model.layers(np.zeros(model.size, np.float32))
    brightness = images(public).mean(axis=1)
    first[:] = SMALL / first.shape[0]
    thresholds[:] = -SMALL * np.quantile(brightness, np.arange(UNITS) / UNITS)
    second[:] = np.resize([1, -1], second.shape[1])  # the same for all units
    return model.vector([(first, thresholds), (second, logits)])


def read(model: Perceptron, mean: np.ndarray) -> np.ndarray:
    """Return the image of every bin, (bins, pixels)."""
    (weights, biases), _ = model.layers(mean.astype(np.float64))
    bins, parts = -np.diff(weights, axis=1).T, -np.diff(biases)
    # An empty bin holds the noise of rounding only, and its quotient is no image of anything.
    return np.asarray(bins / np.where(np.abs(parts) < 1e-12, 1, parts)[:, None])


def shown(bins: np.ndarray, data: np.ndarray) -> int:
    """Return how many images correlate with some bin."""

    def centred(rows: np.ndarray) -> np.ndarray:
        rows = rows - rows.mean(axis=1, keepdims=True)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))

    best = (centred(bins) @ centred(images(data)).T).max(axis=0)
    return int((best > ALIKE).sum())


class Attack:
    """Four real clients in a verified session, and what a server that plants sees in one round."""

    def __init__(self, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        self.data: Dataset = load_dataset("mnist5k", 0)
        self.model = Perceptron(784, UNITS, 10)
        monkeypatch.setattr("fl.learning.build.Trainer", lambda *_: self.model)
        self.config = config
        self.learners: dict[int, Learner] = {
            index: make_learner(config, index, "mnist5k", secret=seeded(f"imprint {index}"))
            for index in range(1, CLIENTS + 1)
        }

    def batches(self) -> np.ndarray:
        """Return what the clients train on in the first round."""
        seed, parts = self.config.learning.seed, []
        for index, learner in self.learners.items():
            x, _ = batch(learner._x, learner._y, 1, BATCH, seed, index)
            parts.append(x)
        return np.concatenate(parts)

    def bins(self) -> np.ndarray:
        """Return the images that the server reads off the mean of one round."""
        codec = self.learners[1].codec
        weights = planted(self.model, self.data.test_x)
        model = RoundModel(weights, codec.first_public())
        made = {index: learner.update(1, model) for index, learner in self.learners.items()}
        values = {i: self.learners[i].encode(1, model, *update) for i, update in made.items()}
        session: Any = vars(self.config.session)
        simulation = Simulation(
            CLIENTS,
            session["threshold"],
            codec.payload_length,
            verified=True,
            min_contributors=session["min_contributors"],
            value_bits=session["value_bits"],
        )
        simulation.run_setup()
        outcome = simulation.run_round(values, model=model.to_bytes())
        assert isinstance(outcome, Summed) and len(outcome.contributors) == CLIENTS
        assert not simulation.refusals
        return read(self.model, codec.decode(outcome.total, CLIENTS, model.public).update)


def config(directory: Path, *more: str) -> Config:
    words = "--dataset mnist5k --verify_aggregate True --resiliency 0.75"
    batches = ["--batch_size_per_worker", str(BATCH)]
    return flags(directory, *words.split(), *batches, *more)


def test_a_verified_sum_shows_most_images_of_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = Attack(config(tmp_path), monkeypatch)
    seen = shown(attack.bins(), attack.batches())
    print(f"images of the {CLIENTS * BATCH} in the batches that one sum shows: {seen}")
    assert seen >= 45


def test_with_differential_privacy_no_image_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = Attack(config(tmp_path, "--dp_epsilon", "8", "--value_bits", "20"), monkeypatch)
    assert all(learner.private for learner in attack.learners.values())
    assert shown(attack.bins(), attack.data.train_x) == 0
