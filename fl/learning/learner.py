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
from fl.model.trainer import Trainer, clip
from fl.privacy.privacy import make_privacy
from fl.schemes.plain import with_figures
from fl.schemes.session import Model, Vector, rotation_for
from fl.state.spending import Spending
from mphe.update.compression import compress, coordinates
from mphe.update.quantise import Figures, quantise, sample_weight
from mphe.update.streams import Stream, generator


@dataclass(frozen=True)
class _Settled:
    """What a counted round leaves behind: its loss, and the values that are still to be sent."""

    loss: float
    memory: Vector


class Learner:
    """Trains on a client's own data and writes down what of it was counted."""

    def __init__(self, args: Args, index: int, dataset: str, own_data: bool = False) -> None:
        """Load this client's part of the data, or all that is its own, and build the model."""
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
        self._rotation = rotation_for(args, self.size)
        # Each round proposes its loss and what it leaves unsent.
        self._ledger: Ledger[_Settled] = Ledger()
        self._unsent: Vector = np.zeros(0, np.float32)
        # A thread outlives the round that was given up while it computed.
        self._lock = threading.Lock()
        # The first call compiles; done now, it does not delay the first round.
        self._trainer.gradient(self._x[:1], self._y[:1])

    @property
    def private(self) -> bool:
        """Whether nothing in clear may depend on the data."""
        return self.privacy is not None

    def update(self, round: int, model: Model) -> tuple[Vector, Figures]:
        """Return the clipped sum of this round's gradients, float32 (size,), and its figures."""
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
        figures = Figures(float(np.mean(losses)), float(np.mean(accuracies)), samples, weight)
        return clip(total, args.clip_norm), figures

    def _batch(self, round: int, step: int) -> tuple[NDArray[Any], NDArray[Any]]:
        args = self._args
        size, seed = args.batch_size_per_worker, args.seed
        return batch(self._x, self._y, round, size, seed, self._index, step)

    def encode(self, round: int, model: Model, update: Vector, figures: Figures) -> NDArray[Any]:
        """Return what is to be encrypted: integers, or the values themselves in plain mode."""
        args = self._args
        values = self._compress(round, update) * np.float32(figures.weight)
        if args.aggregation == "plain":
            return with_figures(values, figures)
        if self._rotation is not None:
            values = self._rotation.apply(values, round)
        rng = generator(Stream.ROUNDING, args.seed, self._index, round)
        return quantise(values, model.reach, args.value_bits, figures, rng)

    def _compress(self, round: int, update: Vector) -> Vector:
        """Return the values of this round's coordinates, with what earlier rounds left of them."""
        args = self._args
        if args.compression_rate == 1:
            return update
        settled = self._ledger.state
        memory = np.zeros(self.size, np.float32) if settled is None else settled.memory
        chosen = coordinates(self.size, args.compression_rate, args.seed, round)
        sent, self._unsent = compress(update, memory, chosen)
        return clip(sent, args.clip_norm)

    def sends(self, round: int, figures: Figures) -> None:
        """Note that an update leaves, which may or may not be counted."""
        self._ledger.propose(round, _Settled(figures.loss, self._unsent))

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
