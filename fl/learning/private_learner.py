"""What a client computes under differential privacy: clipped contributions with noise."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.config.configs import LearningConfig
from fl.learning.learner import Learner, Samples
from fl.model.round_model import RoundModel
from fl.model.trainer import Trainer
from fl.privacy.privacy import Privacy
from mphe import RandomSource
from mphe.update import NO_COUNTS, Codec, Counts


class BudgetSpent(Exception):
    """One more update would cost this client's data more privacy than it was promised."""


class UnfitSamples(Exception):
    """The model cannot take some of this client's samples."""


def poisson_batch(source: RandomSource, samples: int, rate: float) -> NDArray[np.intp]:
    """Return the indices of a batch that holds each sample with this probability, on its own."""
    if rate >= 1:
        return np.arange(samples)
    # Rounded down: a sample is in the batch no more often than is accounted for.
    return np.flatnonzero(source.words(samples) < np.uint64(rate * 2.0**64))


class PrivateLearner(Learner):
    """A learner whose updates reveal little of one unit, even summed up over the whole run."""

    private = True

    def __init__(
        self,
        config: LearningConfig,
        index: int,
        samples: Samples,
        trainer: Trainer,
        codec: Codec,
        privacy: Privacy,
        secret: RandomSource,
    ) -> None:
        """Refuse what cannot be protected: ModelError, UnfitSamples.

        Args:
            config: what is learnt.
            index: of this client.
            samples: its own.
            trainer: of the model.
            codec: adds the noise.
            privacy: what is promised.
            secret: of batches.
        """
        super().__init__(config, index, samples, trainer, codec)
        self.privacy = privacy
        self._allowed = privacy.budget.rounds
        self._secret = secret
        if privacy.unit == "sample":
            self._trainer.try_alone(self._x[:2], self._y[:2], config.clip_norm)
        self._check_samples()

    def _check_samples(self) -> None:
        """Refuse data that the model cannot learn: later, an error would tell who is in a batch."""
        try:
            self._trainer.evaluate(self._x, self._y)
        except Exception as error:  # TensorFlow raises all kinds
            # Not a UserError: the data of other clients may be in order.
            raise UnfitSamples(
                "--dataset: not all of this client's samples fit the model: check labels and values"
            ) from error

    def update(self, round: int, model: RoundModel) -> tuple[NDArray[Any], Counts]:
        """Return this round's contribution without noise, floats (size,), and no counts.

        Raises BudgetSpent before the one that would exceed the budget.
        """
        model.check_weighting(self._config.weighted)
        if self.spending.rounds >= self._allowed:
            raise BudgetSpent(
                f"{self._allowed} updates have spent this client's privacy budget "
                f"(--dp_epsilon {self.privacy.epsilon:g}): it sends no more in this session"
            )
        if self.privacy.unit == "sample":
            return self._sampled(model), NO_COUNTS
        try:
            return super().update(round, model)[0], NO_COUNTS
        except ValueError:  # not finite; an error would tell what this client's data do
            return np.zeros(self.size, np.float32), NO_COUNTS

    def _sampled(self, model: RoundModel) -> NDArray[np.float64]:
        clip_norm = self._config.clip_norm
        with self._lock:
            chosen = poisson_batch(self._secret, len(self._y), self.privacy.sampling_rate)
            self._trainer.set_vector(model.weights)
            total = self._trainer.clipped_sum(self._x[chosen], self._y[chosen], clip_norm)
        # A constant: dividing by how many there happened to be would tell how many there were.
        return total / self._config.batch_size

    def sends(self, round: int, counts: Counts) -> None:
        """Write down that an update leaves: it is spent, counted by the server or not."""
        self.spending.add()
        super().sends(round, counts)
