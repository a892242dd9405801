"""What a client computes: updates of the model from its own data."""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.config.configs import LearningConfig
from fl.data.partition import batch
from fl.learning.pending import PendingUpdates
from fl.model.round_model import RoundModel
from fl.model.trainer import Trainer
from fl.state.spending import Spending
from mphe.update import Codec, Counts, Vector, clip, sample_weight

Samples = tuple[NDArray[Any], NDArray[Any]]
"""Inputs and labels, one row each."""


@dataclass(frozen=True)
class _Settled:
    """What a counted round leaves behind: its loss, and the values that are still to be sent."""

    loss: float
    unsent: Vector | None


class Learner:
    """Trains on a client's own data and writes down what of it was counted.

    Attributes:
        size: values of the model.
        codec: how updates travel.
        spending: what the data has been charged for.
        private: whether nothing in clear may depend on the data.
    """

    private = False

    def __init__(
        self, config: LearningConfig, index: int, samples: Samples, trainer: Trainer, codec: Codec
    ) -> None:
        """Compile the model, so that this does not delay the first round.

        Args:
            config: what is learnt.
            index: of this client.
            samples: its own.
            trainer: of the model.
            codec: how updates travel.
        """
        self._config = config
        self._index = index
        self._x, self._y = samples
        self._trainer = trainer
        self.size = trainer.size
        self.codec = codec
        self.spending = Spending()
        # Each round proposes its loss and what it leaves unsent.
        self._pending: PendingUpdates[_Settled] = PendingUpdates()
        self._unsent: Vector | None = None
        # A thread outlives the round that was given up while it computed.
        self._lock = threading.Lock()
        self._trainer.gradient(self._x[:1], self._y[:1])

    def update(self, round: int, model: RoundModel) -> tuple[NDArray[Any], Counts]:
        """Return the clipped sum of this round's gradients, float32 (size,), and its counts.

        Raises EncodingError where the model names a weight that --weighting rules out.
        """
        config = self._config
        model.check_weighting(config.weighted)
        rate = config.local_rate * config.schedule.factor(round, config.rounds)
        weights, total = model.weights, np.zeros(self.size, np.float32)
        losses, accuracies = [], []
        with self._lock:
            for step in range(config.local_steps):
                x, y = self._batch(round, step)
                self._trainer.set_vector(weights)
                gradient, loss, accuracy = self._trainer.gradient(x, y)
                total += gradient
                weights = weights - np.float32(rate) * gradient
                losses.append(loss)
                accuracies.append(accuracy)
        samples = len(self._y)
        weight = sample_weight(samples, model.reference)
        counts = Counts(float(np.mean(losses)), float(np.mean(accuracies)), samples, weight)
        return clip(total, config.clip_norm), counts

    def _batch(self, round: int, step: int) -> Samples:
        config = self._config
        size, seed = config.batch_size, config.seed
        return batch(self._x, self._y, round, size, seed, self._index, step)

    def encode(
        self, round: int, model: RoundModel, update: NDArray[Any], counts: Counts
    ) -> NDArray[Any]:
        """Return what is to be summed: this update, and what earlier ones left unsent."""
        seed = self._config.seed
        settled = self._pending.state
        if settled is not None and settled.unsent is not None:
            update = settled.unsent + update
        self._unsent = self.codec.unsent(update, seed=seed, round=round)
        return self.codec.encode(
            update, model.public, seed=seed, index=self._index, round=round, counts=counts
        )

    def sends(self, round: int, counts: Counts) -> None:
        """Write down that an update leaves, which may or may not be counted."""
        self._pending.propose(round, _Settled(counts.loss, self._unsent))

    def counted(self, round: int, counted: bool) -> None:
        """Take the server's word on whether this round's update is in the sum."""
        self._pending.settle(round, counted)

    def report(self) -> str:
        """Return one line on what became of the updates."""
        pending = self._pending
        line = f"{pending.counted} of {pending.sent} updates were counted"
        if pending.state is None:
            return line
        return f"{line}, the last with loss {pending.state.loss:.4f}"
