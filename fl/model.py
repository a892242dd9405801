"""The reference CNN behind flat float32 vectors; the only module that imports TensorFlow."""

import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.data import CLASSES, Images, Labels

Vector = NDArray[np.float32]
EVALUATION_BATCH = 500


def configure_tensorflow(threads: int) -> None:
    """Limit TensorFlow to `threads` cores and silence its log; call before it is imported.

    Raises RuntimeError when TensorFlow is loaded already, because then nothing would change.
    """
    if "tensorflow" in sys.modules:
        raise RuntimeError("configure_tensorflow must come before the first import of TensorFlow")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # Several processes share the cores: a waiting thread sleeps instead of spinning.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def clip(vector: Vector, norm: float) -> Vector:
    """Return a copy of a float32 (n,) vector, scaled down to L2 norm `norm` if it is longer.

    Raises ValueError when the vector holds NaN or infinity.
    """
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(length):
        raise ValueError("the update holds NaN or infinity")
    scale = 1.0 if length <= norm else norm / length
    return (vector * scale).astype(np.float32)


def import_quietly() -> None:
    """Import Keras and TensorFlow without the lines that TF_CPP_MIN_LOG_LEVEL does not silence.

    What they write to file descriptor 2 is shown only if the import fails.
    """
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as noise:
        try:
            os.dup2(noise.fileno(), 2)
            importlib.import_module("keras")
            importlib.import_module("tensorflow")
        except BaseException:
            noise.seek(0)
            os.write(real, noise.read())
            raise
        finally:
            os.dup2(real, 2)
            os.close(real)


def build_model(seed: int) -> Any:
    """Return the Keras functional CNN: (n, 28, 28, 1) in, (n, 10) logits out."""
    import_quietly()
    import keras

    seeds = iter(np.random.SeedSequence(seed).generate_state(8).tolist())

    def he() -> Any:
        # Each layer draws from a seed of its own: equal shapes must not start equal.
        return keras.initializers.HeNormal(seed=next(seeds) & 0x7FFFFFFF)

    inputs = values = keras.Input((28, 28, 1))
    for _ in range(3):
        for _ in range(2):
            values = keras.layers.Conv2D(
                32, 3, padding="same", activation="relu", kernel_initializer=he()
            )(values)
        values = keras.layers.MaxPooling2D()(values)
    values = keras.layers.Flatten()(values)
    values = keras.layers.Dense(512, activation="relu", kernel_initializer=he())(values)
    outputs = keras.layers.Dense(CLASSES, kernel_initializer=he())(values)
    return keras.Model(inputs, outputs)


class Trainer:
    """The model of one process: weights as one vector, gradients and evaluation."""

    def __init__(self, seed: int) -> None:
        """Build the model with seeded He initialisation; imports TensorFlow."""
        self._model = build_model(seed)
        self._shapes = [tuple(variable.shape) for variable in self._model.trainable_variables]
        self.size = sum(int(np.prod(shape)) for shape in self._shapes)
        self._gradient, self._evaluate = _compiled(self._model)

    def get_vector(self) -> Vector:
        """Return all weights as float32 (size,)."""
        return np.concatenate([np.ravel(weight) for weight in self._model.get_weights()])

    def set_vector(self, vector: Vector) -> None:
        """Load all weights from float32 (size,); ValueError on another shape."""
        if vector.shape != (self.size,):
            raise ValueError(f"the model has {self.size} weights, not {vector.shape}")
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1]
        pieces = np.split(vector.astype(np.float32, copy=False), ends)
        weights = [piece.reshape(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]
        self._model.set_weights(weights)

    def gradient(self, x: Images, y: Labels) -> tuple[Vector, float]:
        """Return the gradient float32 (size,) of the mean loss over a batch, and that loss."""
        vector, loss = self._gradient(x, y)
        return vector.numpy(), float(loss)

    def evaluate(self, x: Images, y: Labels) -> tuple[float, float]:
        """Return accuracy in 0..1 and mean loss over all samples, in batches."""
        right, loss = 0.0, 0.0
        for start in range(0, len(y), EVALUATION_BATCH):
            part = slice(start, start + EVALUATION_BATCH)
            part_right, part_loss = self._evaluate(x[part], y[part])
            right, loss = right + float(part_right), loss + float(part_loss)
        return right / len(y), loss / len(y)

    def save(self, path: str | Path) -> None:
        """Write the model as one .keras file; its outputs are logits."""
        self._model.save(path)


def _compiled(model: Any) -> tuple[Any, Any]:
    """Return the graph functions (x, y) -> (gradient, mean loss) and (x, y) -> sums.

    Their fixed signature keeps batches of other sizes from being traced again.
    """
    import tensorflow as tf

    signature = [
        tf.TensorSpec((None, 28, 28, 1), tf.float32),
        tf.TensorSpec((None,), tf.int64),
    ]

    def losses(y: Any, logits: Any) -> Any:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)

    def gradient(x: Any, y: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses(y, model(x, training=True)))
        variables = [variable.value for variable in model.trainable_variables]
        pieces = tape.gradient(loss, variables)
        return tf.concat([tf.reshape(piece, [-1]) for piece in pieces], 0), loss

    def evaluate(x: Any, y: Any) -> tuple[Any, Any]:
        logits = model(x, training=False)
        right = tf.equal(tf.argmax(logits, axis=1), y)
        return tf.reduce_sum(tf.cast(right, tf.float32)), tf.reduce_sum(losses(y, logits))

    return (
        tf.function(gradient, input_signature=signature),
        tf.function(evaluate, input_signature=signature),
    )
