"""The real command under differential privacy: what it prints, and that it stops on its own."""

import json
from pathlib import Path

import pytest

from tests.end_to_end.launcher import command, free_port, started

pytestmark = pytest.mark.slow


def test_the_run_ends_when_the_budget_is_spent(tmp_path: Path) -> None:
    model = "--model examples/logistic.py:model --value_bits 20 --clip_norm 1"
    privacy = "--dp_epsilon 3 --dp_noise_multiplier 1.5 --batch_size_per_worker 250"
    more = f"{model} {privacy} --resiliency 0.75 --learning_rate 4 --num_iterations 400"
    with started(command(4, free_port(), tmp_path, *more.split())) as process:
        said, _ = process.communicate(timeout=180)
    lines = [line for line in said.splitlines() if line.strip()]
    assert process.returncode == 0, said
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert 1 < len(records) < 400
    last = records[-1]["epsilon"]
    assert 2.5 < last <= 3
    assert lines[-1].startswith(f"the privacy budget is spent after round {len(records)}")
    assert any(f"epsilon {last:.4g}" in line and line.startswith("round") for line in lines)
    assert any("(3, 1e-05)-differential privacy of each sample" in line for line in lines)
    assert records[-1]["accuracy"] > 0.6
    privacy_of_run = json.loads((tmp_path / "config.json").read_text())["derived"]["privacy"]
    assert privacy_of_run["noise_multiplier"] == 1.5
    assert (tmp_path / "model.keras").exists()
