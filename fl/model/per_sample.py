"""Gradients of single samples, clipped one by one and added up (Abadi et al., arXiv 1607.00133)."""

from typing import Any

from fl.model.loss import Loss, flat_gradient


def compile_clipped_sum(model: Any, loss: Loss, signature: list[Any], size: int) -> Any:
    """Return the graph function (x, y, norm) -> Σ g·min(1, norm/‖g‖), float64 (size,).

    A loop over the samples, so that memory does not grow with their number and any model works.
    Sums and norms are doubles: what one sample adds stays within the norm. A gradient that is not
    finite counts as zero, since an error would tell that the sample is there.

    Args:
        model: a Keras model of float32 weights.
        loss: of a batch; of one sample here, with the model's penalties.
        signature: of x and y.
        size: values of a gradient.
    """
    import tensorflow as tf

    def one(x: Any, y: Any, norm: Any) -> Any:
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            value = loss(x, y, outputs, training=True)
        gradient = tf.cast(flat_gradient(model, tape, value), tf.float64)
        length = tf.norm(gradient)
        clipped = gradient * (norm / tf.maximum(length, norm))
        return tf.where(tf.math.is_finite(length), clipped, tf.zeros_like(gradient))

    def clipped_sum(x: Any, y: Any, norm: Any) -> Any:
        def step(position: Any, total: Any) -> tuple[Any, Any]:
            here = slice(position, position + 1)
            return position + 1, total + one(x[here], y[here], norm)

        start = tf.constant(0), tf.zeros([size], tf.float64)
        count = tf.shape(x)[0]
        return tf.while_loop(lambda at, _: at < count, step, start, parallel_iterations=1)[1]

    return tf.function(clipped_sum, input_signature=[*signature, tf.TensorSpec((), tf.float64)])
