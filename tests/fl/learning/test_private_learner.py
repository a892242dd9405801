"""What a private client computes: clipped samples, secret batches, silence, and when it stops."""

from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.data.load import Dataset
from fl.learning.private_learner import BudgetSpent, UnfitSamples, poisson_batch
from fl.model.round_model import RoundModel
from fl.model.trainer import ModelError, Trainer
from fl.state.spending import Spending
from mphe.errors import EncodingError
from mphe.net.tls import new_credentials
from mphe.run.vault import StateError, Vault
from mphe.update import PublicRange
from tests.fl.federation import SIZE, flags
from tests.fl.private import SAMPLES, StubTrainer, learner, pretend, private_flags
from tests.support import seeded

MODEL = RoundModel(np.zeros(SIZE, np.float32), PublicRange(0.5))


def sixty_samples() -> Dataset:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (60, 5)).astype(np.float32), rng.integers(0, 3, 60)
    x[7] = 0  # a small gradient
    x[9] *= 1000  # a very large one
    return Dataset(name="sixty", train_x=x, train_y=y, test_x=x, test_y=y)


def tiny_model() -> Any:
    import keras

    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(4, activation="tanh", kernel_regularizer="l2")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.LayerNormalization()(hidden)))


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    file = tmp_path_factory.mktemp("model") / "tiny.py"
    file.write_text("from tests.fl.learning.test_private_learner import tiny_model as model\n")
    return Trainer(1, f"{file}:model", sixty_samples())


@pytest.mark.parametrize("norm", [1e-3, 1.5, 1e6])
@pytest.mark.parametrize("count", [0, 1, 60])
def test_clipped_sums_are_those_of_a_slow_loop(trainer: Trainer, norm: float, count: int) -> None:
    data = sixty_samples()
    x, y = data.train_x[:count], data.train_y[:count]
    slow = np.zeros(trainer.size)
    clipped = 0
    for one in range(count):
        gradient = trainer.gradient(x[one : one + 1], y[one : one + 1])[0].astype(np.float64)
        length = float(np.linalg.norm(gradient))
        clipped += length > norm
        slow += gradient * min(1.0, norm / length)
    total = trainer.clipped_sum(x, y, norm)
    assert total.dtype == np.float64
    assert np.abs(total - slow).max() <= 1e-5 * max(float(np.abs(slow).max()), norm)
    if count == 60:
        assert clipped == {1e-3: 60, 1.5: clipped, 1e6: 0}[norm]


def test_one_sample_changes_the_sum_by_the_norm_at_most(trainer: Trainer) -> None:
    data = sixty_samples()
    everything = trainer.clipped_sum(data.train_x, data.train_y, 0.5)
    for left_out in (0, 7, 9):
        others = np.delete(np.arange(60), left_out)
        rest = trainer.clipped_sum(data.train_x[others], data.train_y[others], 0.5)
        assert np.linalg.norm(everything - rest) <= 0.5 * (1 + 1e-12)


def test_a_gradient_that_is_not_finite_counts_as_zero(trainer: Trainer) -> None:
    data = sixty_samples()
    x = data.train_x[:3].copy()
    x[1] = np.inf
    total = trainer.clipped_sum(x, data.train_y[:3], 1.0)
    rest = trainer.clipped_sum(x[[0, 2]], data.train_y[[0, 2]], 1.0)
    assert np.array_equal(total, rest)


def test_batches_hold_every_sample_with_the_same_probability_on_its_own() -> None:
    source, rounds, rate = seeded("poisson"), 4000, 0.3
    drawn = np.zeros((rounds, SAMPLES))
    for row in drawn:
        row[poisson_batch(source, SAMPLES, rate)] = 1
    deviation = sqrt(rate * (1 - rate) / rounds)
    assert np.abs(drawn.mean(axis=0) - rate).max() < 4.5 * deviation
    # Independent: sizes vary as those of a binomial do, and no two samples go together.
    assert np.var(drawn.sum(axis=1)) == pytest.approx(SAMPLES * rate * (1 - rate), rel=0.1)
    together = np.corrcoef(drawn.T) - np.eye(SAMPLES)
    assert np.abs(together).max() < 5 / sqrt(rounds)
    assert poisson_batch(source, SAMPLES, 1.0).tolist() == list(range(SAMPLES))


def test_batches_are_secret_and_their_size_is_told_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, 1.0)
    args = private_flags(tmp_path, "--batch_size_per_worker", "4")
    mine, same, other = learner(args, 1, "a"), learner(args, 1, "a"), learner(args, 1, "b")
    sizes = []
    for one in (mine, same, other):
        updates = [one.update(number, MODEL)[0] for number in range(1, 9)]
        trainer = one._trainer
        assert isinstance(trainer, StubTrainer)
        sizes.append(trainer.batches)
        # Divided by a constant, not by what the batch happened to hold.
        assert [update[0] for update in updates] == [size / 4 for size in sizes[-1]]
    assert sizes[0] == sizes[1] != sizes[2]  # of the secret source, not of --seed
    assert len(set(sizes[0])) > 2


def test_counts_tell_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 0.01)
    for unit in ("sample", "client"):
        one = learner(private_flags(tmp_path, "--dp_unit", unit))
        _, counts = one.update(1, MODEL)
        assert (counts.loss, counts.accuracy, counts.samples, counts.weight) == (0, 0, 0, 1)
        assert one.private


def test_an_update_of_a_client_is_clipped_and_never_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, 5.0)
    one = learner(private_flags(tmp_path, "--dp_unit", "client", "--clip_norm", "2"))
    assert np.linalg.norm(one.update(1, MODEL)[0]) == pytest.approx(2)
    monkeypatch.setattr(StubTrainer, "value", float("nan"))
    assert not one.update(2, MODEL)[0].any()


@pytest.mark.parametrize("unit", ["sample", "client"])
def test_a_model_that_names_a_weight_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    """It costs the budget nothing, and is no error of the data that has to be hidden."""
    pretend(monkeypatch)
    one = learner(private_flags(tmp_path, "--dp_unit", unit))
    with pytest.raises(EncodingError, match="--weighting is uniform"):
        one.update(1, replace(MODEL, reference=125.0))
    assert one.spending.rounds == 0


@pytest.mark.parametrize("unit", ["sample", "client"])
def test_a_client_sends_nothing_beyond_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    pretend(monkeypatch)
    noise = ("--dp_noise_multiplier", "2")
    one = learner(private_flags(tmp_path, "--dp_unit", unit, *noise))
    allowed = one.privacy.budget.rounds
    assert 1 <= allowed < 100
    for number in range(1, allowed + 1):
        _, counts = one.update(number, MODEL)
        one.sends(number, counts)
        one.counted(number, False)  # a server that says so gets nothing for it
    with pytest.raises(BudgetSpent, match=r"privacy budget \(--dp_epsilon 4\)"):
        one.update(allowed + 1, MODEL)


def test_a_restart_goes_on_counting_and_refuses_other_flags(tmp_path: Path) -> None:
    args = private_flags(tmp_path, "--state_dir", str(tmp_path / "state")).flags
    key = new_credentials("client").private_key
    vault = Vault(tmp_path / "vault", key, 1, bytes(32))
    first = Spending(args, vault)
    first.add()
    first.add()
    assert Spending(args, vault, goes_on=True).rounds == 2
    for name, changed in (
        ("dp_epsilon", {**args, "dp_epsilon": 5.0}),
        ("clip_norm", {**args, "clip_norm": 2.0}),
        ("dp_unit", {**args, "dp_unit": "client"}),
    ):
        with pytest.raises(StateError, match=f"was started with --{name} "):
            Spending(changed, vault, goes_on=True)
    with pytest.raises(StateError, match="--dp_epsilon 4"):
        Spending(flags(tmp_path).flags, vault, goes_on=True)
    # A client without a share of the key does not know that the session goes on: it counts on.
    assert Spending(args, vault).rounds == 2
    vault.close()


def test_a_session_without_privacy_does_not_go_on_with_it(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault", new_credentials("client").private_key, 1, bytes(32))
    with pytest.raises(StateError, match="started with no --dp_epsilon, not --dp_epsilon 4"):
        Spending(private_flags(tmp_path).flags, vault, goes_on=True)
    assert Spending(flags(tmp_path).flags, vault, goes_on=True).rounds == 0
    # A session that never began binds nobody.
    assert Spending(private_flags(tmp_path).flags, vault).rounds == 0
    other = Spending({**private_flags(tmp_path).flags, "dp_epsilon": 2.0}, vault)
    other.add()
    with pytest.raises(StateError, match=r"started with --dp_epsilon 2\.0, not --dp"):
        Spending(private_flags(tmp_path).flags, vault)
    vault.close()


def forgetful_model() -> Any:
    import keras

    inputs = keras.Input((5,))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dropout(0.5)(inputs)))


def test_a_model_that_draws_anew_for_each_sample_is_refused(
    trainer: Trainer, tmp_path: Path
) -> None:
    """Its masks depend on how many samples came before."""
    data = sixty_samples()
    trainer.try_alone(data.train_x[:2], data.train_y[:2], 1.0)
    file = tmp_path / "forgetful.py"
    file.write_text("from tests.fl.learning.test_private_learner import forgetful_model as model\n")
    forgetful = Trainer(1, f"{file}:model", data)
    with pytest.raises(ModelError, match="--dp_unit client"):
        forgetful.try_alone(data.train_x[:2], data.train_y[:2], 1.0)


def test_samples_that_would_fail_later_are_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    learner(private_flags(tmp_path))

    def fail(*_: Any) -> None:
        raise RuntimeError("label 11 of 0..9")

    monkeypatch.setattr(StubTrainer, "evaluate", fail)
    with pytest.raises(UnfitSamples, match="check labels") as refused:
        learner(private_flags(tmp_path))
    assert "11" not in str(refused.value)
