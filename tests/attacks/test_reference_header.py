"""Attack: the server says how many samples weigh 1, and thereby whose update the sum consists of.

Every client is sent the same model, so verified aggregates notice nothing. With a reference of 125
samples a client that has 1,000 weighs 8 and clients that have 10 weigh 0.08.
Claim: where weighting is uniform a client refuses a model that names a reference.
Weakened: it multiplies its update by the weight that follows. With `--weighting samples` that is
what was agreed on, and the sum is nearly the largest client's update: there is no defence but a sum
of clients of like size.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl.learning.learner import Learner
from fl.model.round_model import RoundModel
from mphe import EncodingError, Summed, UpdateCodec
from tests.fl.federation import flags
from tests.fl.perceptron import Perceptron
from tests.simulation import Simulation

VICTIM, CLASSES, INPUTS = 1, 4, 16
SAMPLES = {VICTIM: 1000, 2: 10, 3: 10, 4: 10}


def learners(directory: Path, weighted: bool) -> dict[int, Learner]:
    """Return clients of whom one has a hundred times as many samples."""
    config = replace(flags(directory).learning, weighted=weighted)
    rng, made = np.random.default_rng(0), {}
    for index, samples in SAMPLES.items():
        x, y = rng.standard_normal((samples, INPUTS)), rng.integers(0, CLASSES, samples)
        model: Any = Perceptron(INPUTS, CLASSES)
        codec = UpdateCodec(model.size, 16, config.clip_norm, weighted=True)
        made[index] = Learner(config, index, (x.astype(np.float32), y), model, codec)
    return made


def seen(clients: dict[int, Learner], reference: float) -> float:
    """Return the cosine between the victim's update and the sum that a verified round opens."""
    codec = clients[VICTIM].codec
    model = RoundModel(np.zeros(clients[VICTIM].size, np.float32), codec.first_public(), reference)
    made = {index: client.update(1, model) for index, client in clients.items()}
    values = {i: clients[i].encode(1, model, *update) for i, update in made.items()}
    simulation = Simulation(4, 3, codec.payload_length, verified=True, min_contributors=3)
    simulation.run_setup()
    outcome = simulation.run_round(values, model=model.to_bytes())
    assert isinstance(outcome, Summed) and outcome.contributors == (1, 2, 3, 4)
    assert not simulation.refusals
    mean = codec.decode(outcome.total, 4, model.public).update
    true = made[VICTIM][0]
    return float(mean @ true / np.linalg.norm(mean) / np.linalg.norm(true))


def test_a_client_that_obeys_is_nearly_isolated(tmp_path: Path) -> None:
    clients = learners(tmp_path, weighted=True)
    assert seen(clients, 125.0) > 0.99
    assert seen(clients, 0.0) < 0.8


def test_a_reference_is_refused_where_weighting_is_uniform(tmp_path: Path) -> None:
    clients = learners(tmp_path, weighted=False)
    with pytest.raises(EncodingError, match="125 samples as weight 1 where --weighting is uniform"):
        seen(clients, 125.0)
    assert seen(clients, 0.0) < 0.8
