"""The reference model behind flat vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.data.load import Dataset, load_dataset
from fl.model.trainer import ModelError, Trainer, configure_tensorflow


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer(0)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("mnist5k", 0)


def test_size_and_seeds(trainer: Trainer) -> None:
    vector = trainer.get_vector()
    assert trainer.size == 199_658 and vector.shape == (199_658,) and vector.dtype == np.float32
    assert np.array_equal(Trainer(0).get_vector(), vector)
    assert not np.array_equal(Trainer(1).get_vector(), vector)


def test_initialisation_is_he_and_no_two_layers_start_equal(trainer: Trainer) -> None:
    # The second to sixth convolutions have equal shapes: 9248 weights each after the first 320.
    kernels = [trainer.get_vector()[320 + i * 9248 :][:9216] for i in range(5)]
    for i, kernel in enumerate(kernels):
        # Keras truncates at two deviations and keeps the variance 2 / fan_in.
        assert np.std(kernel) == pytest.approx(np.sqrt(2 / 288), rel=0.05)
        assert not any(np.array_equal(kernel, other) for other in kernels[:i])


def test_vectors_round_trip(trainer: Trainer) -> None:
    before = trainer.get_vector()
    vector = np.random.default_rng(1).normal(size=trainer.size).astype(np.float32)
    trainer.set_vector(vector)
    assert np.array_equal(trainer.get_vector(), vector)
    trainer.set_vector(before)
    with pytest.raises(ValueError, match="199658 weights"):
        trainer.set_vector(vector[1:])


def test_the_gradient_is_the_slope_of_the_loss(trainer: Trainer, digits: Dataset) -> None:
    start = trainer.get_vector()
    x, y = digits.train_x[:128], digits.train_y[:128]
    slope, loss, _ = trainer.gradient(x, y)
    assert slope.shape == (trainer.size,) and slope.dtype == np.float32
    assert loss == pytest.approx(trainer.evaluate(x, y)[1], rel=1e-4)
    step = np.float32(1e-4)
    trainer.set_vector(start - step * slope)
    fallen = loss - trainer.evaluate(x, y)[1]
    assert fallen == pytest.approx(float(step * (slope @ slope)), rel=0.1)
    trainer.set_vector(start)


def test_batch_sizes_share_one_graph(trainer: Trainer, digits: Dataset) -> None:
    for size in (1, 7, 32):
        trainer.gradient(digits.train_x[:size], digits.train_y[:size])
    assert trainer._gradient.experimental_get_tracing_count() == 1


def test_evaluation_in_batches_equals_evaluation_at_once(
    trainer: Trainer, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = digits.test_x[:300], digits.test_y[:300]
    accuracy, loss = trainer.evaluate(x, y)
    monkeypatch.setattr("fl.model.trainer.EVALUATION_BATCH", 77)
    assert trainer.evaluate(x, y) == pytest.approx((accuracy, loss), rel=1e-5)
    assert 0 <= accuracy <= 1


def test_a_saved_model_is_the_same_model(trainer: Trainer, tmp_path: Path) -> None:
    import keras

    trainer.save(tmp_path / "model.keras")
    loaded: Any = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(
        np.concatenate([np.ravel(w) for w in loaded.get_weights()]), trainer.get_vector()
    )


def test_limits_come_too_late_after_the_import(trainer: Trainer) -> None:
    with pytest.raises(RuntimeError, match="before the first import"):
        configure_tensorflow(1)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ("[k.layers.Flatten(), k.layers.BatchNormalization(), k.layers.Dense(10)]", "GroupNorm"),
        ("[k.layers.Flatten(), k.layers.Dense(10, dtype='float16')]", "must be float32"),
        ("[k.layers.Flatten()]", "no trainable weights"),
        ("[k.layers.Dense(10, 'nonsense')]", "failed: ValueError"),
    ],
)
def test_a_model_that_sums_cannot_train_is_refused(tmp_path: Path, body: str, hint: str) -> None:
    text = "import keras as k\ndef model():\n    return k.Sequential([k.Input((28, 28, 1)), *"
    (tmp_path / "own.py").write_text(f"{text}{body}])\n")
    with pytest.raises(ModelError, match=hint) as caught:
        Trainer(0, f"{tmp_path}/own.py:model")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="defines no function other"):
        Trainer(0, f"{tmp_path}/own.py:other")
