"""Schedules, server optimizers, weights and compression, each against plain arithmetic."""

from pathlib import Path

import numpy as np
import pytest

from fl.config.schedule import Schedule
from fl.learning.build import make_learner
from fl.learning.global_model import GlobalModel
from fl.model.optimise import ServerOptimizer
from fl.model.round_model import RoundModel
from fl.schemes.scheme import codec_for
from mphe.update import Counts, PublicRange, sample_weight
from mphe.update.compression import coordinates
from mphe.update.quantise import dequantise, quantise
from tests.fl.federation import flags


def test_schedules() -> None:
    assert [Schedule.parse("constant").factor(r, 9) for r in (1, 9)] == [1, 1]
    cosine = [Schedule.parse("cosine").factor(r, 10) for r in range(1, 11)]
    assert cosine[0] == 1 and cosine[5] == pytest.approx(0.5) and 0 < cosine[-1] < 0.03
    assert [Schedule.parse("step:2:0.5").factor(r, 9) for r in (1, 2, 3, 5)] == [1, 1, 0.5, 0.25]


def test_server_optimizers() -> None:
    start, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    ends = {}
    for kind in ("sgd", "momentum", "adam"):
        optimizer, weights = ServerOptimizer(kind, 1), start
        for _ in range(2):
            weights = optimizer.step(weights, one, 0.1)
        ends[kind] = float(weights[0])
    adam = 0.1 / (np.sqrt(0.01) + 1e-3) + 0.19 / (np.sqrt(0.0199) + 1e-3)
    assert ends == pytest.approx({"sgd": -0.2, "momentum": -0.29, "adam": -0.1 * adam}, rel=1e-4)


def test_weights_make_the_sum_a_mean_over_samples() -> None:
    rng = np.random.default_rng(0)
    updates, samples = np.array([[1.0], [-1.0]], np.float32), (300, 100)
    weights = [sample_weight(count, 100.0) for count in samples]
    total = sum(
        quantise(u * np.float32(w), 3.0, 16, Counts(1.0, 0.5, s, w), rng)
        for u, s, w in zip(updates, samples, weights, strict=True)
    )
    mean = dequantise(np.asarray(total), 2, 3.0, 16, weighted=True)
    assert mean.update[0] == pytest.approx(0.5, abs=1e-3)
    assert mean.samples == 400
    assert mean.accuracy == pytest.approx(0.5)
    assert sample_weight(5, 0.0) == 1.0 and sample_weight(10**9, 1.0) == 8.0


def test_only_counted_rounds_move_the_memory(tmp_path: Path) -> None:
    words = "--model examples/logistic.py:model --dataset mnist5k --compression_rate 0.5"
    args = flags(tmp_path, *words.split(), "--aggregation", "plain")
    learner = make_learner(args, 1, "mnist5k")
    model = RoundModel(np.zeros(learner.size, np.float32), PublicRange(3.0))

    def send(round: int, counted: bool) -> np.ndarray:
        update, counts = learner.update(1, model)
        values = learner.encode(round, model, update, counts)
        learner.sends(round, counts)
        learner.counted(round, counted)
        return np.asarray(values[:-4])

    first = send(1, counted=False)
    assert np.array_equal(send(1, counted=False), first)
    send(1, counted=True)
    # Round 2 sends the other half: what round 1 left of it, and the same again.
    other, _ = learner.update(1, model)
    expected = 2 * other[coordinates(learner.size, 0.5, args.learning.seed, 2)]
    assert np.allclose(send(2, counted=True), expected, atol=1e-6)


def test_fedavg_sends_the_sum_of_the_gradients_on_its_path(tmp_path: Path) -> None:
    words = "--model examples/logistic.py:model --dataset mnist5k --clip_norm 1000"
    one = make_learner(flags(tmp_path, *words.split()), 1, "mnist5k")
    two = make_learner(flags(tmp_path, *words.split(), "--local_steps", "2"), 1, "mnist5k")
    start = np.zeros(one.size, np.float32)
    first, _ = one.update(1, RoundModel(start, PublicRange(3.0)))
    both, _ = two.update(1, RoundModel(start, PublicRange(3.0)))
    x, y = two._batch(1, 1)
    two._trainer.set_vector((start - np.float32(0.1) * first).astype(np.float32))
    assert np.allclose(both, first + two._trainer.gradient(x, y)[0], atol=1e-5)


def test_the_global_model_follows_the_schedule(tmp_path: Path) -> None:
    args = flags(tmp_path, "--aggregation", "plain", "--learning_rate_schedule", "step:1:0.5")
    model = GlobalModel(args.learning, np.zeros(1, np.float32), codec_for(args.codec, 1))
    for round in (1, 2):
        model.step(round, np.array([2.0, 2.0, 1.0, 20.0, 2.0]), 2)
    assert model.weights[0] == pytest.approx(-0.1 - 0.05)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_a_model_that_was_kept_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, optimizer: str
) -> None:
    words = ["--weighting", "samples", "--learning_rate_schedule", "cosine"]
    args = flags(tmp_path, *words, "--server_optimizer", optimizer)
    rng = np.random.default_rng(0)
    sums = []
    for number in (1, 2):
        counts = Counts(1.0, 0.5, 300 * number, 1.0)
        update = np.full(8, 0.01, np.float32)
        sums.append(sum(quantise(update, 3.0, 16, counts, rng) for _ in range(2)))
    whole, again = (
        GlobalModel(args.learning, np.zeros(8, np.float32), codec_for(args.codec, 8))
        for _ in range(2)
    )
    whole.step(1, np.asarray(sums[0]), 2)
    again.restore(RoundModel.from_bytes(whole.sent().to_bytes(), 8), whole.averages())
    assert (again.public, again.reference) == (whole.public, 300)
    assert whole.public.clip_range < 3 * 8
    for model in (whole, again):
        model.step(2, np.asarray(sums[1]), 2)
    assert np.array_equal(again.weights, whole.weights)
    assert (again.public, again.reference) == (whole.public, whole.reference)


def test_averages_of_another_optimizer_are_refused() -> None:
    for state in (ServerOptimizer("adam", 3).state(), np.full(3, np.nan, "<f4").tobytes()):
        with pytest.raises(ValueError, match="no averages of momentum"):
            ServerOptimizer("momentum", 3).restore(state)
