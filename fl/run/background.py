"""What the server does beside the rounds: it evaluates the model, keeps it on disk, and draws."""

import asyncio
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from math import inf, isnan
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fl.data.load import Dataset
from fl.report.metrics import Evaluation

MODEL_FILE = "model.keras"
UNFINISHED = ".unfinished"
"""Where a model is written before it takes its name; nobody mistakes it for a whole one."""
ROUND_ENTRY = "training.json"
"""In the model's file: the round after which it had these weights."""
PART = 100
"""Samples that are evaluated at a time: what waits for the thread waits no longer than that."""
SHORTEST_PAUSE, PAUSE_FACTOR = 10.0, 20.0
"""Seconds between two pictures at least, and as multiple of what one takes."""


class Evaluator(Protocol):
    """What is needed of a trainer."""

    def set_vector(self, vector: NDArray[np.float32]) -> None:
        """Load all weights."""

    def evaluate(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[float, float]:
        """Return accuracy and mean loss."""

    def save(self, path: Path) -> None:
        """Write the model."""


class Background:
    """One thread for all that needs the model or takes long; no round waits for it.

    One thread, so that nobody evaluates or saves a model while others write into it. Evaluation
    goes in parts, so that the model of a round is on disk soon, whoever kills this process.
    """

    def __init__(
        self, trainer: Evaluator, data: Dataset, directory: Path, draw: Callable[[], None]
    ) -> None:
        """Keep `directory`/model.keras; `draw` draws the rounds so far, and is called at times."""
        self._trainer = trainer
        self._data = data
        self._directory = directory
        self._draw = draw
        self._thread = ThreadPoolExecutor(1, "background")
        self._loaded: NDArray[np.float32] | None = None
        self._latest: tuple[int, NDArray[np.float32]] | None = None
        self._kept: NDArray[np.float32] | None = None
        self._jobs: list[Future[None]] = []
        self._next_picture = 0.0
        # Of a process that was killed while it saved.
        shutil.rmtree(directory / UNFINISHED, ignore_errors=True)

    async def evaluate(self, round: int, weights: NDArray[np.float32]) -> Evaluation:
        """Return what these weights of a round are worth on the test set."""
        loop, count = asyncio.get_running_loop(), len(self._data.test_y)
        accuracy = loss = 0.0
        for start in range(0, count, PART):
            right, lost = await loop.run_in_executor(self._thread, self._part, weights, start)
            part = min(PART, count - start) / count
            accuracy, loss = accuracy + part * right, loss + part * lost
        return Evaluation(round, None if isnan(accuracy) else accuracy, loss)

    def _part(self, weights: NDArray[np.float32], start: int) -> tuple[float, float]:
        self._load(weights)
        part = slice(start, start + PART)
        return self._trainer.evaluate(self._data.test_x[part], self._data.test_y[part])

    def _load(self, weights: NDArray[np.float32]) -> None:
        if self._loaded is not weights:
            self._trainer.set_vector(weights)
            self._loaded = weights

    def keep(self, round: int, weights: NDArray[np.float32]) -> None:
        """Have the model of a round on disk soon; one that still waits gives way to it.

        Raises:
            OSError: an earlier one could not be written.
        """
        self._raise_failures()
        self._latest = (round, weights)
        self._jobs.append(self._thread.submit(self._keep_latest))

    def _raise_failures(self) -> None:
        done = [job for job in self._jobs if job.done()]
        self._jobs = [job for job in self._jobs if not job.done()]
        for job in done:
            job.result()

    def _keep_latest(self) -> None:
        if self._latest is not None:
            self._save(*self._latest)
        began = time.monotonic()
        if began >= self._next_picture:
            self._draw()
            ended = time.monotonic()
            self._next_picture = ended + max(SHORTEST_PAUSE, PAUSE_FACTOR * (ended - began))

    def _save(self, round: int, weights: NDArray[np.float32]) -> None:
        """Replace the model on disk in one step."""
        if self._kept is weights:  # by an earlier turn, or the round was abandoned
            return
        self._load(weights)
        directory = self._directory / UNFINISHED
        path = directory / MODEL_FILE
        try:
            directory.mkdir(exist_ok=True)
            self._trainer.save(path)
            # In the same file, so that the two can never disagree.
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(ROUND_ENTRY, json.dumps({"round": round}))
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.replace(self._directory / MODEL_FILE)
            self._kept = weights
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def close(self, round: int, weights: NDArray[np.float32]) -> None:
        """End with the model of the last round on disk; OSError when it cannot be written."""
        self._next_picture = inf  # the run draws its last one itself
        try:
            self._thread.submit(self._save, round, weights).result()
            self._raise_failures()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)
