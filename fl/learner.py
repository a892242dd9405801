"""What a client computes: updates of the model from its own data."""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.arguments import Args
from fl.bookkeeping import Ledger
from fl.data import batch, client_part, load_dataset
from fl.model import Trainer, clip
from fl.quantise import quantise
from fl.session import Model, Vector

# Domain of the seed of stochastic rounding.
_ROUNDING = 3


class Learner:
    """What a client computes: an update of the model on a batch of its own data."""

    def __init__(self, args: Args, index: int, dataset: str, own_data: bool = False) -> None:
        """Load this client's part of the data, or all that is its own, and build the model."""
        data = load_dataset(dataset, args.seed)
        self._x, self._y = data.train_x, data.train_y
        if not own_data:
            self._x, self._y = client_part(data, index, args.num_peers, args.seed)
        self._args = args
        self._index = index
        # Each round proposes the loss of its batch.
        self._ledger: Ledger[float] = Ledger()
        self._trainer = Trainer(args.seed)
        self.size = self._trainer.size
        # A thread outlives the round that was given up while it computed.
        self._lock = threading.Lock()
        # The first call compiles; done now, it does not delay the first round.
        self._trainer.gradient(self._x[:1], self._y[:1])

    def update(self, round: int, model: Model) -> tuple[Vector, float]:
        """Return the clipped gradient, float32 (size,), and the loss of this round's batch."""
        args = self._args
        x, y = batch(self._x, self._y, round, args.batch_size_per_worker, args.seed, self._index)
        with self._lock:
            self._trainer.set_vector(model.weights)
            gradient, loss = self._trainer.gradient(x, y)
        return clip(gradient, args.clip_norm), loss

    def sends(self, round: int, loss: float) -> None:
        """Note that an update leaves, which may or may not be counted."""
        self._ledger.propose(round, loss)

    def counted(self, round: int, counted: bool) -> None:
        """Take the server's word on whether this round's update is in the sum."""
        self._ledger.settle(round, counted)

    def report(self) -> str:
        """Return one line on what became of the updates."""
        ledger = self._ledger
        line = f"{ledger.counted} of {ledger.sent} updates were counted"
        return line if ledger.state is None else f"{line}, the last with loss {ledger.state:.4f}"

    def encode(self, round: int, model: Model, update: Vector, loss: float) -> NDArray[Any]:
        """Return what is to be encrypted: integers, or the update itself in plain mode."""
        args = self._args
        if args.aggregation == "plain":
            return update
        rng = np.random.default_rng([args.seed, _ROUNDING, self._index, round])
        return quantise(update, model.reach, args.value_bits, loss, rng)
