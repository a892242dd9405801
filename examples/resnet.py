"""A residual network on images of digits: 2.4 million parameters.

Batch normalisation keeps statistics that sums of gradients do not carry; group normalisation
takes its place (Hsieh et al., arXiv 1910.00189).

mpirun -n 5 -H localhost:5 python main.py --num_peers 4 --server_address localhost:8080 \
    --robust True --dataset mnist5k --model examples/resnet.py:model --batch_size_per_worker 32
"""

from typing import Any

import keras
from keras import layers


def block(values: Any, width: int, stride: int) -> Any:
    """Return the values after two convolutions, added to a shortcut."""
    shortcut = values
    if stride != 1 or values.shape[-1] != width:
        shortcut = layers.Conv2D(width, 1, stride, use_bias=False)(values)
    for step in (stride, 1):
        values = layers.Activation("relu")(layers.GroupNormalization(8)(values))
        values = layers.Conv2D(width, 3, step, padding="same", use_bias=False)(values)
    return layers.Add()([values, shortcut])


def model() -> keras.Model:
    """Return a network that is compiled: its loss is kept, its optimizer is not used."""
    image = keras.Input((28, 28, 1))
    values = layers.Conv2D(64, 3, 2, padding="same", use_bias=False)(image)
    for width, stride in ((64, 1), (128, 2), (256, 2), (256, 1)):
        values = block(values, width, stride)
    values = layers.Activation("relu")(layers.GroupNormalization(8)(values))
    values = layers.GlobalAveragePooling2D()(values)
    made = keras.Model(image, layers.Dense(10)(values), name="resnet")
    made.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made
