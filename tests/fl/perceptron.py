"""A network of dense layers in NumPy: real learners without TensorFlow, and weights to plant."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

Layers = list[tuple[np.ndarray, np.ndarray]]
"""Weights (inputs, units) and biases (units,) of each layer."""


class Perceptron:
    """Dense layers with ReLU between them and a softmax behind; stands where `Trainer` does."""

    has_classes = True

    def __init__(self, *widths: int) -> None:
        self._shapes = list(pairwise(widths))
        self.size = sum((inputs + 1) * units for inputs, units in self._shapes)
        self._layers = self.layers(np.zeros(self.size, np.float32))

    def layers(self, vector: np.ndarray) -> Layers:
        """Return a flat vector as layers; layer after layer, weights before biases."""
        layers, start = [], 0
        for inputs, units in self._shapes:
            end = start + inputs * units
            layers.append((vector[start:end].reshape(inputs, units), vector[end : end + units]))
            start = end + units
        return layers

    def vector(self, layers: Layers) -> np.ndarray:
        """Return layers as one flat vector, float32 (size,)."""
        parts = [part.reshape(-1) for layer in layers for part in layer]
        return np.concatenate(parts).astype(np.float32)

    def set_vector(self, vector: np.ndarray) -> None:
        self._layers = self.layers(vector.astype(np.float64))

    def gradient(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float, float]:
        seen, outputs = self._forward(x)
        error, loss, accuracy = _loss(outputs, y)
        return self.vector(self._backward(seen, error / len(y))), loss, accuracy

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        _, loss, accuracy = _loss(self._forward(x)[1], y)
        return accuracy, loss

    def clipped_sum(self, x: np.ndarray, y: np.ndarray, norm: float) -> np.ndarray:
        total = np.zeros(self.size)
        for row in range(len(y)):
            alone, *_ = self.gradient(x[row : row + 1], y[row : row + 1])
            total += alone * min(1.0, norm / max(float(np.linalg.norm(alone)), 1e-30))
        return total

    def try_alone(self, x: Any, y: Any, norm: float) -> None:
        """Every sample's gradient is its own."""

    def _forward(self, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Return what each layer is given, and the logits."""
        seen, values = [], x.reshape(len(x), -1).astype(np.float64)
        for weights, biases in self._layers:
            seen.append(values)
            outputs = values @ weights + biases
            values = np.maximum(outputs, 0)
        return seen, outputs

    def _backward(self, seen: list[np.ndarray], error: np.ndarray) -> Layers:
        gradients: Layers = []
        for (weights, _), given in zip(reversed(self._layers), reversed(seen), strict=True):
            gradients.insert(0, (given.T @ error, error.sum(axis=0)))
            error = (error @ weights.T) * (given > 0)
        return gradients


def _loss(outputs: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return the derivative of each sample's loss by its logits, mean loss, and accuracy."""
    chances = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(chances[rows, y] + 1e-30).mean()
    accuracy = (outputs.argmax(axis=1) == y).mean()
    chances[rows, y] -= 1
    return chances, float(loss), float(accuracy)
