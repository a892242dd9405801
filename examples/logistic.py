"""Logistic regression on images of digits: 7,850 parameters.

mpirun -n 5 -H localhost:5 python main.py --num_peers 4 --server_address localhost:8080 \
    --robust True --dataset mnist5k --model examples/logistic.py:model
"""

import keras


def model() -> keras.Model:
    """Return scores of ten classes; without compile the loss follows the labels."""
    image = keras.Input((28, 28, 1))
    scores = keras.layers.Dense(10)(keras.layers.Flatten()(image))
    return keras.Model(image, scores, name="logistic")
