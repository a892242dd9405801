"""Runs main.py as a user does who has no launcher."""

import subprocess
import sys

from tests.end_to_end.launcher import ROOT, unlaunched
from tests.patience import scaled

__all__ = ["ROOT", "run"]


def run(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, without what an outer launcher left in the environment."""
    return subprocess.run(
        [sys.executable, "main.py", *argv],
        cwd=ROOT,
        env=unlaunched() | environ,
        capture_output=True,
        text=True,
        timeout=scaled(120),
    )
