"""Your own data and model: which of the first two numbers of a row is larger."""

import keras
import numpy as np


def data() -> tuple[np.ndarray, ...]:
    """Return x_train, y_train, x_test, y_test: the same at every party."""
    x = np.random.default_rng(0).normal(size=(2500, 20))
    y = (x[:, 0] > x[:, 1]).astype(int)
    return x[:2000], y[:2000], x[2000:], y[2000:]


def model() -> keras.Model:
    """Return scores of two classes; the loss of a model that is not compiled follows y."""
    layers = [keras.Input((20,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2)]
    return keras.Sequential(layers)
