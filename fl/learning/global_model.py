"""The server's model between rounds: what it sends, and how it steps by a sum."""

from typing import Any

from numpy.typing import NDArray

from fl.config.configs import LearningConfig
from fl.model.optimise import ServerOptimizer
from fl.model.round_model import RoundModel
from mphe.update import Codec, Mean, Vector


class GlobalModel:
    """Weights, the optimizer's averages, and the public numbers that go out with the model.

    Attributes:
        weights: float32 (size,).
        public: what clients encode the updates of the next round with.
        reference: samples that make weight 1; 0 until a sum has told how many there are.
    """

    def __init__(self, config: LearningConfig, weights: Vector, codec: Codec) -> None:
        self._config = config
        self._codec = codec
        self.weights = weights
        self.public = codec.first_public()
        self.reference = 0.0
        self._optimizer = ServerOptimizer(config.server_optimizer, weights.size)

    @property
    def clip_norm(self) -> float:
        """L2 norm to which clients clip their updates."""
        return self._config.clip_norm

    def sent(self) -> RoundModel:
        """Return what the clients are sent at the start of a round, and what a restart needs."""
        return RoundModel(self.weights, self.public, self.reference)

    def averages(self) -> bytes:
        """Return what the optimizer carries from round to round, for `restore`."""
        return self._optimizer.state()

    def restore(self, model: RoundModel, averages: bytes = b"") -> None:
        """Go on from what `sent` and `averages` returned; without averages from rest."""
        if averages:
            self._optimizer.restore(averages)
        self.weights, self.public = model.weights, model.public
        self.reference = model.reference

    def implausible(self, total: NDArray[Any], contributors: int) -> str:
        """Return why honest updates to this model cannot add up to a total, or ""."""
        return self._codec.implausible(total, contributors, self.public)

    def step(self, round: int, total: NDArray[Any], contributors: int) -> Mean:
        """Step by the mean of a round's summed contributions, and return it."""
        config = self._config
        mean = self._codec.decode(total, contributors, self.public, seed=config.seed, round=round)
        self.public = self._codec.next_public(self.public, mean)
        if config.weighted and mean.samples:
            self.reference = mean.samples / contributors
        rate = config.learning_rate * config.schedule.factor(round, config.rounds)
        self.weights = self._optimizer.step(self.weights, mean.update, rate)
        return mean
