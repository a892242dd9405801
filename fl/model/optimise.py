"""How the server turns a mean update into a step (Reddi et al., arXiv 2003.00295)."""

import numpy as np

from fl.config.configs import OPTIMIZERS
from mphe.update import Vector

MOMENTUM = 0.9
ADAM_FIRST, ADAM_SECOND, ADAM_FLOOR = 0.9, 0.99, 1e-3


class ServerOptimizer:
    """Steps of kind sgd, momentum or adam; keeps their moving averages, float32 (size,)."""

    def __init__(self, kind: str, size: int) -> None:
        if kind not in OPTIMIZERS:
            raise ValueError(f"no server optimizer {kind!r}")
        self.kind = kind
        self.velocity: Vector = np.zeros(0 if kind == "sgd" else size, np.float32)
        self.squares: Vector = np.zeros(size if kind == "adam" else 0, np.float32)

    def step(self, weights: Vector, update: Vector, rate: float) -> Vector:
        """Return the weights after one step against an update, all float32 (size,)."""
        return (weights - rate * self._direction(update)).astype(np.float32)

    def state(self) -> bytes:
        """Return the averages, for `restore`."""
        return np.concatenate((self.velocity, self.squares)).astype("<f4").tobytes()

    def restore(self, state: bytes) -> None:
        """Go on from what `state` returned; ValueError for that of another optimizer or size."""
        ends = self.velocity.size
        values = np.frombuffer(state, "<f4").astype(np.float32)
        if values.size != ends + self.squares.size or not np.isfinite(values).all():
            raise ValueError(f"these are no averages of {self.kind} for this model")
        self.velocity, self.squares = values[:ends], values[ends:]

    def _direction(self, update: Vector) -> Vector:
        if self.kind == "sgd":
            return update
        if self.kind == "momentum":
            self.velocity = (MOMENTUM * self.velocity + update).astype(np.float32)
            return self.velocity
        self.velocity = _average(ADAM_FIRST, self.velocity, update)
        self.squares = _average(ADAM_SECOND, self.squares, update * update)
        return (self.velocity / (np.sqrt(self.squares) + ADAM_FLOOR)).astype(np.float32)


def _average(keep: float, old: Vector, new: Vector) -> Vector:
    return (keep * old + (1 - keep) * new).astype(np.float32)
