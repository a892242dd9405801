"""Measurements; every script prints tables and writes benchmarks/results/<name>.json."""

import os

# One thread is what the numbers mean; this must come before NumPy is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
