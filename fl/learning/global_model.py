"""The server's model between rounds: what it sends, and how it steps by a sum."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.config.arguments import Args
from fl.config.schedule import Schedule
from fl.model.optimise import ServerOptimizer
from fl.privacy.privacy import Privacy, without_figures
from fl.schemes.plain import plain_mean
from fl.schemes.session import Model, Vector, rotation_for
from mphe.update.compression import coordinates, expand, sent_length
from mphe.update.quantise import FINEST_BITS, MAX_WEIGHT, Mean, dequantise, first_reach, next_reach


class GlobalModel:
    """Weights, the optimizer's averages, and the public numbers that go out with the model.

    Attributes:
        weights: float32 (size,).
        reach: range of quantised values in the next round.
        reference: samples that make weight 1; 0 until a sum has told how many there are.
    """

    def __init__(self, args: Args, weights: Vector, privacy: Privacy | None = None) -> None:
        """Start from these weights; `privacy` says how updates are hidden in noise."""
        self._args = args
        self.weights = weights
        self._limit = args.clip_norm * (MAX_WEIGHT if args.weighting == "samples" else 1.0)
        self._privacy = privacy
        self._rotation = rotation_for(args, weights.size)
        sent = sent_length(weights.size, args.compression_rate)
        if privacy:
            self.reach = privacy.start_reach(args.clip_norm)
        else:
            self.reach = first_reach(args.clip_norm, sent, args.value_bits)
        self.reference = 0.0
        self._optimizer = ServerOptimizer(args.server_optimizer, weights.size)
        self._schedule = Schedule.parse(args.learning_rate_schedule)

    def sent(self) -> Model:
        """Return what the clients are sent at the start of a round, and what a restart needs."""
        return Model(self.weights, self.reach, self.reference)

    def averages(self) -> bytes:
        """Return what the optimizer carries from round to round, for `restore`."""
        return self._optimizer.state()

    def restore(self, model: Model, averages: bytes = b"") -> None:
        """Go on from what `sent` and `averages` returned; without averages from rest."""
        if averages:
            self._optimizer.restore(averages)
        self.weights, self.reach = model.weights, model.reach
        self.reference = model.reference

    def step(self, round: int, total: NDArray[Any], contributors: int) -> Mean:
        """Step by the mean of a round's summed contributions, and return it."""
        args = self._args
        if args.aggregation == "plain":
            mean = plain_mean(total, contributors)
        else:
            reach = self._privacy.grid(self.reach).reach if self._privacy else self.reach
            mean = dequantise(
                total.astype(np.int64, copy=False), contributors, reach, args.value_bits
            )
            mean = without_figures(mean) if self._privacy else mean
            # Private clients do not tell what leaves the range: it must not narrow to find out.
            bits = FINEST_BITS if self._privacy else args.value_bits
            self.reach = next_reach(self.reach, mean, contributors, self._limit, bits)
            if self._rotation is not None:
                mean = replace(mean, update=self._rotation.undo(mean.update, round))
        if args.weighting == "samples" and mean.samples:
            self.reference = mean.samples / contributors
        size = self.weights.size
        chosen = coordinates(size, args.compression_rate, args.seed, round)
        update = expand(mean.update, size, chosen)
        rate = args.learning_rate * self._schedule.factor(round, args.num_iterations)
        self.weights = self._optimizer.step(self.weights, update, rate)
        return mean
