"""What a client computes: updates of the model from its own data."""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.config.arguments import Args
from fl.config.schedule import Schedule
from fl.data.load import load_dataset
from fl.data.partition import batch, client_part
from fl.learning.bookkeeping import Ledger
from fl.learning.codecs import codec_for
from fl.model.trainer import Trainer
from fl.privacy.privacy import make_privacy
from fl.schemes.session import Model, Vector
from fl.state.spending import Spending
from mphe.arithmetic.sampling import RandomSource
from mphe.update import Counts, clip, sample_weight


@dataclass(frozen=True)
class _Settled:
    """What a counted round leaves behind: its loss, and the values that are still to be sent."""

    loss: float
    unsent: Vector | None


class Learner:
    """Trains on a client's own data and writes down what of it was counted."""

    def __init__(
        self,
        args: Args,
        index: int,
        dataset: str,
        own_data: bool = False,
        secret: RandomSource | None = None,
    ) -> None:
        """Load this client's part of the data, or all that is its own, and build the model.

        Args:
            args: of the run.
            index: of this client.
            dataset: its name.
            own_data: whether all of it is this client's own.
            secret: of noise, where updates carry some.
        """
        data = load_dataset(dataset, args.seed)
        self._x, self._y = data.train_x, data.train_y
        if not own_data:
            # Copies of its own samples: the rest of the data set is forgotten.
            self._x, self._y = client_part(data, index, args.num_peers, args.seed, args.partition)
        self._args = args
        self._index = index
        self._schedule = Schedule.parse(args.learning_rate_schedule)
        self._trainer = Trainer(args.seed, args.model, data)
        self.size = self._trainer.size
        self.spending = Spending(args)
        self.privacy = make_privacy(args, self.size, None if own_data else data.train_y)
        self.codec = codec_for(args, self.size, self.privacy, secret)
        # Each round proposes its loss and what it leaves unsent.
        self._ledger: Ledger[_Settled] = Ledger()
        self._unsent: Vector | None = None
        # A thread outlives the round that was given up while it computed.
        self._lock = threading.Lock()
        # The first call compiles; done now, it does not delay the first round.
        self._trainer.gradient(self._x[:1], self._y[:1])

    @property
    def private(self) -> bool:
        """Whether nothing in clear may depend on the data."""
        return self.privacy is not None

    def update(self, round: int, model: Model) -> tuple[Vector, Counts]:
        """Return the clipped sum of this round's gradients, float32 (size,), and its counts."""
        args = self._args
        factor = self._schedule.factor(round, args.num_iterations)
        rate = (args.local_learning_rate or args.learning_rate) * factor
        weights, total = model.weights, np.zeros(self.size, np.float32)
        losses, accuracies = [], []
        with self._lock:
            for step in range(args.local_steps):
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
        return clip(total, args.clip_norm), counts

    def _batch(self, round: int, step: int) -> tuple[NDArray[Any], NDArray[Any]]:
        args = self._args
        size, seed = args.batch_size_per_worker, args.seed
        return batch(self._x, self._y, round, size, seed, self._index, step)

    def encode(self, round: int, model: Model, update: Vector, counts: Counts) -> NDArray[Any]:
        """Return what is to be summed: this update, and what earlier ones left unsent."""
        seed = self._args.seed
        settled = self._ledger.state
        if settled is not None and settled.unsent is not None:
            update = settled.unsent + update
        self._unsent = self.codec.unsent(update, seed=seed, round=round)
        return self.codec.encode(
            update, model.public, seed=seed, index=self._index, round=round, counts=counts
        )

    def sends(self, round: int, counts: Counts) -> None:
        """Note that an update leaves, which may or may not be counted."""
        self._ledger.propose(round, _Settled(counts.loss, self._unsent))

    def counted(self, round: int, counted: bool) -> None:
        """Take the server's word on whether this round's update is in the sum."""
        self._ledger.settle(round, counted)

    def report(self) -> str:
        """Return one line on what became of the updates."""
        ledger = self._ledger
        line = f"{ledger.counted} of {ledger.sent} updates were counted"
        if ledger.state is None:
            return line
        return f"{line}, the last with loss {ledger.state.loss:.4f}"
