"""Keras models behind flat float32 vectors: the reference CNN, or a user's own."""

import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl.data.keras_import import import_quietly
from fl.data.load import CLASSES, Dataset
from fl.data.user_code import UserError, load_function
from fl.model.loss import Loss, flat_gradient
from fl.model.per_sample import compile_clipped_sum
from mphe.update import Vector

EVALUATION_BATCH = 500
_IMAGES = np.zeros((2, 28, 28, 1), np.float32), np.zeros(2, np.int64)


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


class ModelError(UserError):
    """The model cannot be trained here; the message is one line that says what to do."""


class Trainer:
    """The model of one process: trainable weights as one vector, gradients and evaluation."""

    def __init__(self, seed: int, model: str = "cnn", data: Dataset | None = None) -> None:
        """Build the model and try it on two samples; imports TensorFlow.

        Args:
            seed: of the initial weights.
            model: cnn, or FILE.py:FUNCTION of the user.
            data: whose shapes and types it is to take; images in ten classes when left out.

        Raises:
            ModelError: the model does not fit the data or cannot be trained by sums of updates.
        """
        self._name = model
        x, y = (data.train_x, data.train_y) if data else _IMAGES
        self._model = build_model(seed) if model == "cnn" else _own_model(seed, model)
        try:
            self._loss = Loss(self._model, x[:2], y)
            self._variables = list(self._model.trainable_variables)
            _check_types(self._variables)
            self._shapes = [tuple(variable.shape) for variable in self._variables]
            self.has_classes = self._loss.kind is not None
            self.size = sum(int(np.prod(shape)) for shape in self._shapes)
            self._signature = _signature(x, y)
            self._gradient, self._evaluate = _compiled(self._model, self._loss, self._signature)
            self._try(x[:2], y[:2])
        except ModelError:
            raise
        except Exception as error:
            # Keras and TensorFlow raise all kinds for a model that does not fit.
            text = " ".join(str(error).split())[:300]
            raise ModelError(f"--model {model} cannot learn this data: {text}") from error

    def _try(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Refuse a model whose training changes more than its weights: sums would not carry it."""
        state = [np.array(weight) for weight in self._model.non_trainable_weights]
        _, loss, _ = self.gradient(x, y)
        for before, weight in zip(state, self._model.non_trainable_weights, strict=True):
            if not np.array_equal(before, np.array(weight)):
                raise ModelError(
                    f"training changes {weight.path}, which is not trained by gradients, such as "
                    "statistics of batches: use GroupNormalization or LayerNormalization instead "
                    "of BatchNormalization, or freeze the layer with trainable = False"
                )
        if not np.isfinite(loss):
            raise ModelError(f"the loss of the untrained model is {loss}: check loss and labels")

    def describe(self) -> str:
        """Return name on the command line, size, types and loss in one line."""
        fixed = sum(int(np.prod(w.shape)) for w in self._model.non_trainable_weights)
        return (
            f"model {self._name}: {self.size:,} parameters in {len(self._shapes)} arrays, "
            f"float32, {fixed:,} fixed values, loss {self._loss.name}"
        )

    def get_vector(self) -> Vector:
        """Return all trainable weights as float32 (size,)."""
        return np.concatenate([np.ravel(variable.numpy()) for variable in self._variables])

    def set_vector(self, vector: Vector) -> None:
        """Load all trainable weights from float32 (size,); ValueError on another shape."""
        if vector.shape != (self.size,):
            raise ValueError(f"the model has {self.size} weights, not {vector.shape}")
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1]
        pieces = np.split(vector.astype(np.float32, copy=False), ends)
        for variable, piece, shape in zip(self._variables, pieces, self._shapes, strict=True):
            variable.assign(piece.reshape(shape))

    def gradient(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[Vector, float, float]:
        """Return the gradient float32 (size,) of the loss of a batch, that loss, and accuracy."""
        vector, loss, accuracy = self._gradient(x, y)
        return vector.numpy(), float(loss), float(accuracy)

    def clipped_sum(self, x: NDArray[Any], y: NDArray[Any], norm: float) -> NDArray[np.float64]:
        """Return Σ of the samples' gradients, each clipped to a norm, float64 (size,)."""
        total: NDArray[np.float64] = self._clipped_sum(x, y, norm).numpy()
        return total

    def try_alone(self, x: NDArray[Any], y: NDArray[Any], norm: float) -> None:
        """Refuse a model in which a sample's gradient depends on the samples before it.

        The masks of Dropout do: they follow from a seed and the number of calls so far, so one
        sample more would change the gradients of all later ones.
        """
        state = [np.array(variable) for variable in self._model.non_trainable_variables]
        self.clipped_sum(x, y, norm)
        for before, variable in zip(state, self._model.non_trainable_variables, strict=True):
            if not np.array_equal(before, np.array(variable)):
                raise ModelError(
                    f"training changes {variable.path}, so samples are not clipped on their own: "
                    "leave out layers like Dropout, or use --dp_unit client"
                )

    @cached_property
    def _clipped_sum(self) -> Any:
        return compile_clipped_sum(self._model, self._loss, self._signature, self.size)

    def evaluate(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[float, float]:
        """Return accuracy in 0..1 (NaN without classes) and mean loss, in batches."""
        right, loss = 0.0, 0.0
        for start in range(0, len(y), EVALUATION_BATCH):
            part = slice(start, start + EVALUATION_BATCH)
            count = len(y[part])
            part_loss, accuracy = self._evaluate(x[part], y[part])
            right, loss = right + count * float(accuracy), loss + count * float(part_loss)
        return right / len(y), loss / len(y)

    def save(self, path: str | Path) -> None:
        """Write the model as one .keras file; the outputs of the cnn are logits."""
        self._model.save(path)


def _own_model(seed: int, reference: str) -> Any:
    """Return what a user's function returns, with initial weights that follow the seed."""
    import_quietly()
    import keras

    keras.utils.set_random_seed(seed)
    model = load_function(reference, "--model", ModelError)()
    if not isinstance(model, keras.Model):
        raise ModelError(f"--model: {reference} returned {type(model).__name__}, no keras.Model")
    return model


def _check_types(variables: list[Any]) -> None:
    """Refuse what one float32 vector cannot hold."""
    if not variables:
        raise ModelError("the model has no trainable weights: nothing would be learnt")
    wrong = [variable for variable in variables if variable.dtype != "float32"]
    if wrong:
        raise ModelError(
            f"{wrong[0].path} has type {wrong[0].dtype}: weights must be float32 (a mixed_bfloat16 "
            "policy keeps them so)"
        )


def _signature(x: NDArray[Any], y: NDArray[Any]) -> list[Any]:
    """Return the shapes and types of batches of any size."""
    import tensorflow as tf

    return [tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in (x, y)]


def _compiled(model: Any, loss: Loss, signature: list[Any]) -> tuple[Any, Any]:
    """Return the graph functions (x, y) -> (gradient, loss, accuracy) and -> (loss, accuracy).

    Their fixed signature keeps batches of other sizes from being traced again.
    """
    import tensorflow as tf

    def gradient(x: Any, y: Any) -> tuple[Any, Any, Any]:
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            value = loss(x, y, outputs, training=True)
        return flat_gradient(model, tape, value), value, loss.accuracy(y, outputs)

    def evaluate(x: Any, y: Any) -> tuple[Any, Any]:
        outputs = model(x, training=False)
        return loss(x, y, outputs, training=False), loss.accuracy(y, outputs)

    return (
        tf.function(gradient, input_signature=signature),
        tf.function(evaluate, input_signature=signature),
    )
