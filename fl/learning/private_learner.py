"""What a client computes under differential privacy: clipped contributions with noise."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.config.arguments import Args
from fl.learning.learner import Learner
from fl.privacy.privacy import Privacy
from fl.schemes.session import Model
from mphe.arithmetic.sampling import RandomSource
from mphe.update import Counts
from mphe.update.quantise import NO_COUNTS


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

    def __init__(
        self,
        args: Args,
        index: int,
        dataset: str,
        own_data: bool = False,
        secret: RandomSource | None = None,
    ) -> None:
        """Load the data and the model; UsageError when they cannot be protected like that.

        Args:
            args: of the run, with dp_epsilon.
            index: of this client.
            dataset: its name.
            own_data: whether all of it is this client's own.
            secret: of noise and batches, from the system when left out; a known one is for tests.
        """
        self._secret = secret or RandomSource.from_system()
        super().__init__(args, index, dataset, own_data, self._secret)
        if self.privacy is None:
            raise ValueError("a private learner needs dp_epsilon")
        self._private: Privacy = self.privacy
        self._allowed = self._private.budget.rounds
        if args.dp_unit == "sample":
            self._trainer.try_alone(self._x[:2], self._y[:2], args.clip_norm)
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

    def update(self, round: int, model: Model) -> tuple[NDArray[Any], Counts]:
        """Return this round's contribution without noise, floats (size,), and no counts.

        Raises BudgetSpent before the one that would exceed the budget.
        """
        if self.spending.rounds >= self._allowed:
            raise BudgetSpent(
                f"{self._allowed} updates have spent this client's privacy budget "
                f"(--dp_epsilon {self._private.epsilon:g}): it sends no more in this session"
            )
        if self._args.dp_unit == "sample":
            return self._sampled(model), NO_COUNTS
        try:
            return super().update(round, model)[0], NO_COUNTS
        except ValueError:  # not finite; an error would tell what this client's data do
            return np.zeros(self.size, np.float32), NO_COUNTS

    def _sampled(self, model: Model) -> NDArray[np.float64]:
        args = self._args
        with self._lock:
            chosen = poisson_batch(self._secret, len(self._y), self._private.sampling_rate)
            self._trainer.set_vector(model.weights)
            total = self._trainer.clipped_sum(self._x[chosen], self._y[chosen], args.clip_norm)
        # A constant: dividing by how many there happened to be would tell how many there were.
        return total / args.batch_size_per_worker

    def sends(self, round: int, counts: Counts) -> None:
        """Note that an update leaves: it is spent, counted by the server or not."""
        self.spending.add()
        super().sends(round, counts)
