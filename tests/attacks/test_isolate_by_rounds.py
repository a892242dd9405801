"""Attack: the server publishes one model twice and leaves one client out of the second round.

Where an update follows from the model and the client's data, as with a batch of all samples, the
difference of the two sums is that client's update. Both sums are allowed: at least two honest
clients are in each, every decryptor checks its request, nobody is corrupt. Nor would it help to
refuse a model that was seen before, since any bit of it may differ.
Claim: with differential privacy what is left beside the noise says little.
Weakened: aggregates are verified, and there is no noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.config.configs import Config
from fl.learning.build import make_learner
from fl.learning.learner import Learner
from fl.model.round_model import RoundModel
from mphe import Summed
from tests.fl.federation import flags
from tests.fl.perceptron import Perceptron
from tests.simulation import Simulation
from tests.support import seeded

VICTIM, CLIENTS, SAMPLES = 1, 4, 1000
OTHERS = (2, 3, 4)


def learners(config: Config, monkeypatch: pytest.MonkeyPatch) -> dict[int, Learner]:
    monkeypatch.setattr("fl.learning.build.Trainer", lambda *_: Perceptron(784, 10))
    return {
        index: make_learner(config, index, "mnist5k", secret=seeded(f"isolate {index}"))
        for index in range(1, CLIENTS + 1)
    }


def cosine(clients: dict[int, Learner], config: Config, times: int = 1) -> float:
    """Return how close the difference of two rounds' sums comes to the victim's update.

    Args:
        clients: of a verified session.
        config: of all of them.
        times: pairs of rounds that the difference is averaged over.
    """
    victim = clients[VICTIM]
    codec, parameters = victim.codec, config.session.parameters(victim.codec.payload_length)
    model = RoundModel(np.zeros(victim.size, np.float32), codec.first_public())
    session: dict[str, Any] = vars(parameters) | {"verified": True, "rounds": 50}
    simulation = Simulation(session.pop("num_clients"), session.pop("threshold"), **session)
    simulation.run_setup()
    difference, true = np.zeros(victim.size), np.zeros(victim.size)
    for number in range(1, 2 * times + 1):
        there = (*OTHERS, VICTIM) if number % 2 else OTHERS
        made = {index: clients[index].update(number, model) for index in there}
        values = {i: clients[i].encode(number, model, *update) for i, update in made.items()}
        outcome = simulation.run_round(values, present=there, model=model.to_bytes())
        assert isinstance(outcome, Summed) and set(outcome.contributors) == set(there)
        mean = codec.decode(outcome.total, len(there), model.public).update
        difference += len(there) * mean * (1 if number % 2 else -1)
        true += made[VICTIM][0] if VICTIM in made else 0
    assert not simulation.refusals
    return float(difference @ true / np.linalg.norm(difference) / np.linalg.norm(true))


def config(directory: Path, batch: int, *more: str) -> Config:
    words = "--dataset mnist5k --verify_aggregate True --max_corrupt 1 --resiliency 0.75"
    return flags(directory, *words.split(), "--batch_size_per_worker", str(batch), *more)


def test_two_allowed_sums_show_one_client_s_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = config(tmp_path, SAMPLES)
    seen = cosine(learners(args, monkeypatch), args)
    print(f"batches of all samples, two rounds: cosine {seen:.6f}")
    assert seen > 0.999


@pytest.mark.slow
def test_fresh_batches_are_averaged_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = config(tmp_path, 256)
    clients = learners(args, monkeypatch)
    once, often = cosine(clients, args), cosine(clients, args, 8)
    print(f"batches of 256 of 1000: cosine {once:.3f} from two rounds, {often:.3f} from sixteen")
    assert often > 0.9


def test_with_differential_privacy_little_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = config(tmp_path, SAMPLES, "--dp_epsilon", "8", "--dp_unit", "client")
    assert cosine(learners(args, monkeypatch), args) < 0.2
