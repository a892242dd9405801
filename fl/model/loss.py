"""Loss and accuracy of a Keras model: its own when compiled, else what the labels ask for."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Loss:
    """Loss of one batch, and how its accuracy is counted.

    Attributes:
        name: of the loss, for people.
        kind: sparse (a label number for each vector of scores), onehot, binary, or None where
            outputs are no classes.
    """

    def __init__(self, model: Any, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Build the model on a few samples; `y` are all labels, to see what they are."""
        outputs = model(x, training=False)
        if not hasattr(outputs, "shape"):
            raise ValueError("it has several outputs, but only one can be trained")
        self._model = model
        self._probabilities = _ends_in_probabilities(model)
        self.kind = _kind(y, outputs.shape)
        self._own = None if model.compiled else self._choose()
        if self._own is not None:
            self.name = type(self._own).__name__
        else:
            given = getattr(model, "loss", None)
            self.name = getattr(given, "name", None) or str(given)
            # The first call makes what the compiled loss needs; a graph function may not.
            model.compute_loss(x, y[: len(x)], outputs, training=False)

    def _choose(self) -> Any:
        import keras

        losses, logits = keras.losses, not self._probabilities
        if self.kind == "sparse":
            return losses.SparseCategoricalCrossentropy(from_logits=logits)
        if self.kind == "binary":
            return losses.BinaryCrossentropy(from_logits=logits)
        if self.kind == "onehot":
            return losses.CategoricalCrossentropy(from_logits=logits)
        return losses.MeanSquaredError()

    def __call__(self, x: Any, y: Any, outputs: Any, training: bool) -> Any:
        """Return the mean loss of a batch, with the model's own penalties."""
        if self._own is None:
            return self._model.compute_loss(x, y, outputs, training=training)
        # A column of scores and a row of labels would be compared each with each.
        value = self._own(_like(y, outputs) if self.kind != "sparse" else y, outputs)
        return sum(self._model.losses, value)

    def accuracy(self, y: Any, outputs: Any) -> Any:
        """Return the fraction of right outputs, a scalar; NaN without classes."""
        import tensorflow as tf

        if self.kind == "sparse":
            right = tf.equal(tf.argmax(outputs, axis=-1), tf.cast(y, tf.int64))
        elif self.kind == "onehot":
            right = tf.equal(tf.argmax(outputs, axis=-1), tf.argmax(y, axis=-1))
        elif self.kind == "binary":
            middle = 0.5 if self._probabilities else 0.0
            right = tf.equal(outputs > middle, tf.cast(_like(y, outputs), tf.bool))
        else:
            return tf.constant(np.nan)
        return tf.reduce_mean(tf.cast(right, tf.float32))


def _like(y: Any, outputs: Any) -> Any:
    import tensorflow as tf

    return tf.reshape(y, tf.shape(outputs))


def _kind(y: NDArray[Any], shape: tuple[int | None, ...]) -> str | None:
    """Say how labels and outputs of a shape belong together."""
    whole_numbers = y.dtype.kind in "iu"
    classes = shape[-1] or 0
    if whole_numbers and len(shape) == y.ndim + 1 and classes > 1:
        return "sparse"
    if y.ndim == 2 and len(shape) == 2 and y.shape[1] == classes > 1:
        return "onehot" if np.all(y.max(axis=1) == 1) and np.all(y.sum(axis=1) == 1) else None
    if whole_numbers and y[0].size == np.prod([size or 1 for size in shape[1:]]):
        return "binary" if np.isin(y, (0, 1)).all() else None
    return None


def _ends_in_probabilities(model: Any) -> bool:
    """Return whether the last layer is a softmax or sigmoid, so that outputs are no logits."""
    layer = model.layers[-1] if model.layers else None
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    return name in ("softmax", "sigmoid") or type(layer).__name__ == "Softmax"


def flat_gradient(model: Any, tape: Any, value: Any) -> Any:
    """Return the gradient of a recorded loss as one tensor, zero where a weight has no part in it.

    Args:
        model: whose trainable weights are meant, in their order.
        tape: tf.GradientTape that saw how `value` came about.
        value: scalar.
    """
    import tensorflow as tf

    variables = [variable.value for variable in model.trainable_variables]
    zero = tf.UnconnectedGradients.ZERO
    pieces = tape.gradient(value, variables, unconnected_gradients=zero)
    return tf.concat([tf.reshape(tf.convert_to_tensor(piece), [-1]) for piece in pieces], 0)
