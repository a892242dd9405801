"""The real command under differential privacy: what it prints, and that it stops on its own."""

import json
from pathlib import Path

import pytest

from tests.end_to_end.launcher import command, started
from tests.patience import output_of
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


PRIVACY = "--dp_noise_multiplier 1.5 --batch_size_per_worker 250 --clip_norm 1 --value_bits 20"
LEARNING = "--model examples/logistic.py:model --learning_rate 4 --num_iterations 400"


def run(directory: Path, *more: str) -> tuple[int, list[str]]:
    """Run the command to its end; return its exit code and what it printed."""
    words = f"{PRIVACY} {LEARNING} --resiliency 0.75 --state_dir {directory / 'state'}".split()
    output = directory / "results"
    with started(command(4, free_port(), output, *words, *more)) as process:
        said = output_of(process)
    return process.returncode, [line for line in said.splitlines() if line.strip()]


def test_the_run_ends_when_the_budget_is_spent_and_stays_so(tmp_path: Path) -> None:
    code, lines = run(tmp_path, "--dp_epsilon", "3")
    assert code == 0, lines
    metrics = tmp_path / "results" / "metrics.jsonl"
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert 1 < len(records) < 400
    last = records[-1]["epsilon"]
    assert 2.5 < last <= 3
    ending = f"the privacy budget is spent after round {len(records)}"
    assert lines[-1].startswith(ending)
    assert any(f"epsilon {last:.4g}" in line and line.startswith("round") for line in lines)
    assert any("(3, 1e-05)-differential privacy of each sample" in line for line in lines)
    assert records[-1]["accuracy"] > 0.6
    config = json.loads((tmp_path / "results" / "config.json").read_text())
    assert config["derived"]["privacy"]["noise_multiplier"] == 1.5
    # Whoever goes on with the session goes on with what is left of its budget, and no more.
    before = metrics.read_bytes()
    code, lines = run(tmp_path, "--dp_epsilon", "3", "--resume", "True")
    assert code == 0 and lines[-1].startswith(ending), lines
    assert metrics.read_bytes() == before
    code, lines = run(tmp_path, "--dp_epsilon", "8", "--resume", "True")
    assert code == 2, lines
    assert any("--dp_epsilon was 3.0 in this session, not 8.0" in line for line in lines)
    assert metrics.read_bytes() == before
