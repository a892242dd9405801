"""A table: 30 measurements of 569 tumours, benign or malignant; data and model of one's own.

The data (Wolberg et al., breast cancer Wisconsin) come inside scikit-learn.

mpirun -n 5 -H localhost:5 python main.py --num_peers 4 --server_address localhost:8080 \
    --robust True --dataset examples/tabular.py:data --model examples/tabular.py:model \
    --partition dirichlet:1 --weighting samples --local_steps 5 --batch_size_per_worker 32
"""

from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_breast_cancer


def data() -> tuple[Any, Any, Any, Any]:
    """Return x_train, y_train, x_test, y_test: the same at every party."""
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:455], order[455:]
    x = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    return x[train], y[train], x[test], y[test]


def model() -> keras.Model:
    """Return the probability that a tumour is benign."""
    measurements = keras.Input((30,))
    hidden = keras.layers.Dense(16, activation="relu")(measurements)
    benign = keras.layers.Dense(1, activation="sigmoid")(hidden)
    return keras.Model(measurements, benign, name="tabular")
