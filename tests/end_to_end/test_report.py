"""From mpirun to the report: what the server leaves behind is what others can read."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.launcher import ROOT, command, metrics, run
from tests.patience import scaled
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def scalars(directory: Path, tag: str) -> list[tuple[int, Any]]:
    """Read events as TensorBoard does."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_a_quiet_run_can_be_compared_and_watched(tmp_path: Path) -> None:
    outputs = [tmp_path / "plain", tmp_path / "mphe"]
    for output in outputs:
        more = ["--num_iterations", "3", "--quiet", "True", "--aggregation", output.name]
        code, text = run(command(2, free_port(), output, *more))
        assert code == 0, text
        assert "3 completed, 0 abandoned" in text
        assert "round 1/3" not in text and "updates" not in text
    words = [sys.executable, "-m", "fl.report", "--picture", str(tmp_path / "report.png")]
    line = [*words, *map(str, outputs)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=scaled(60))
    assert done.returncode == 0, done.stderr
    for output in outputs:
        records = metrics(output)
        final = f"{records[-1]['accuracy']:.4f}"
        (row,) = (row for row in done.stdout.splitlines() if row.split()[:1] == [output.name])
        assert "3 of 3" in row and final in row
        assert json.loads((output / "config.json").read_text())["flags"]["quiet"] is True
        assert (output / "history.png").read_bytes().startswith(b"\x89PNG")
        losses = [(record["round"], pytest.approx(record["loss"])) for record in records]
        assert scalars(output / "tensorboard", "loss") == losses
        assert len(scalars(output / "tensorboard", "seconds/train")) == 3
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
