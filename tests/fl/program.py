"""Runs main.py as a user does who has no launcher."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = ("OMPI_", "PMIX_", "PMI_", "SLURM_", "MPI_")


def run(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, without what an outer launcher left in the environment."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(LAUNCHERS)}
    return subprocess.run(
        [sys.executable, "main.py", *argv],
        cwd=ROOT,
        env=clean | environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
