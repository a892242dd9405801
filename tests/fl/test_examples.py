"""The examples train: their own models and data, over the real protocol."""

import json
from pathlib import Path

import pytest

from tests.fl.federation import Real, flags, run

EXAMPLES = {
    "own": (
        "--model examples/own.py:model --dataset examples/own.py:data --num_iterations 12 "
        "--learning_rate 1",
        370,
        0.6,
    ),
    "logistic": (
        "--model examples/logistic.py:model --dataset mnist5k --num_iterations 8",
        7_850,
        0.5,
    ),
    "resnet": (
        "--model examples/resnet.py:model --dataset mnist5k --num_iterations 2 --value_bits 12",
        2_406_346,
        0.0,
    ),
    "tabular": (
        "--model examples/tabular.py:model --dataset examples/tabular.py:data --num_iterations 8 "
        "--partition dirichlet:1 --weighting samples --local_steps 5 --learning_rate 0.3",
        513,
        0.85,
    ),
}


@pytest.mark.parametrize(
    "name", ["logistic", pytest.param("resnet", marks=pytest.mark.slow), "tabular"]
)
def test_an_example_learns(tmp_path: Path, name: str) -> None:
    words, size, accuracy = EXAMPLES[name]
    args = flags(
        tmp_path, *words.split(), "--resiliency", "0.6", "--batch_size_per_worker", "16", peers=3
    )
    real = Real.of(args)
    assert real.size == size
    outcome = run(args, real=real)
    records = outcome.history.records
    assert [record.contributors for record in records] == len(records) * [(1, 2, 3)]
    first, last = records[0].loss, records[-1].loss
    assert first is not None and last is not None and last < first
    assert (records[-1].accuracy or 0) >= accuracy
    # Every client reports what it has: together all training samples.
    samples = [record["samples"] for record in map(json.loads, _lines(tmp_path))]
    assert samples == len(records) * [len(real.data.train_y)]
    assert 0 < records[-1].train_accuracy <= 1  # type: ignore[operator]


def _lines(directory: Path) -> list[str]:
    return (directory / "metrics.jsonl").read_text().splitlines()
