"""Whoever stops a job, and whenever: the model, the rounds and their picture are on the disk.

With the real Keras model under the real mpirun, which gives its ranks 0.2 seconds after SIGTERM.
"""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from fl.data.load import load_dataset
from tests.end_to_end.launcher import command, metrics, ranks, run, started
from tests.patience import output_of, wait_until
from tests.ports import free_port

pytestmark = pytest.mark.timeout(600)
PEERS, SEED, ROUNDS = 2, 3, 9
FLAGS = ("--seed", str(SEED), "--learning_rate", "0.05", "--batch_size_per_worker", "256")
EVALUATE = """
import sys, numpy as np, keras
file, data = sys.argv[1:]
model, data = keras.models.load_model(file), np.load(data)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
print(float(loss(data["y"], model.predict(data["x"], batch_size=100, verbose=0))))
"""


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Return the loss after each round of a run that nobody disturbs: one seed, one course."""
    output = tmp_path_factory.mktemp("undisturbed")
    more = ("--num_iterations", str(ROUNDS), "--evaluate_every", "1")
    code, text = run(command(PEERS, free_port(), output, *FLAGS, *more))
    assert code == 0, text
    return {line["round"]: line["loss"] for line in metrics(output)}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = load_dataset("mnist5k", SEED)
    path = tmp_path_factory.mktemp("data") / "test.npz"
    np.savez(path, x=data.test_x, y=data.test_y)
    return path


def rounds_of(output: Path) -> list[int]:
    return [line["round"] for line in metrics(output) if "contributors" in line]


def loss_of(model: Path, data: Path) -> float:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    words = [sys.executable, "-c", EVALUATE, str(model), str(data)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


@pytest.fixture
def job(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A job that would run for long, evaluating beside its rounds."""
    port = free_port()
    flags = dict(zip(FLAGS[::2], FLAGS[1::2], strict=True)) | {"--num_iterations": "1000"}
    words = command(PEERS, port, tmp_path, *(word for pair in flags.items() for word in pair))
    place = words.index("--evaluate_every")
    with started(words[:place] + words[place + 2 :]) as process:
        yield process, port


@pytest.mark.parametrize(
    ("target", "number", "after", "pause"),
    [
        pytest.param("mpirun", signal.SIGINT, 1, 0.3, marks=pytest.mark.slow),
        ("mpirun", signal.SIGINT, 4, 0.0),
        ("mpirun", signal.SIGTERM, 3, 0.15),
        pytest.param("mpirun", signal.SIGTERM, 5, 0.45, marks=pytest.mark.slow),
        pytest.param("server", signal.SIGKILL, 3, 0.05, marks=pytest.mark.slow),
    ],
)
def test_nothing_is_lost(
    tmp_path: Path,
    job: tuple[subprocess.Popen[str], int],
    losses: dict[int, float],
    digits: Path,
    target: str,
    number: int,
    after: int,
    pause: float,
) -> None:
    process, port = job

    def is_drawn() -> bool:
        assert process.poll() is None, process.communicate()[0]
        return len(rounds_of(tmp_path)) >= after and (tmp_path / "history.png").exists()

    wait_until(is_drawn, lambda: f"round {after} does not end", 240, pause=0.01)
    time.sleep(pause)
    os.kill(process.pid if target == "mpirun" else ranks(port)[0], number)
    text = output_of(process, 60)
    done = rounds_of(tmp_path)
    if target == "mpirun":
        assert f"server: stopped by SIGTERM after {len(done)} rounds" in text
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        kept = json.loads(archive.read("training.json"))["round"]
    assert len(done) - 1 <= kept <= len(done) <= ROUNDS
    assert loss_of(tmp_path / "model.keras", digits) == pytest.approx(losses[kept], rel=1e-3)
    assert [path.name for path in tmp_path.glob("*.keras")] == ["model.keras"]
    assert imread(tmp_path / "history.png").shape[0] > 100
