"""What a run leaves behind: config.json, metrics.jsonl, and the final summary."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from errno import ENOSPC
from math import isfinite
from pathlib import Path
from statistics import mean, median
from typing import Any, Protocol

from mphe import Excluded
from mphe.run import Departure

INTERRUPTED = "the server was stopped in this round"
"""Why the round in flight was abandoned when the server died."""
STAGES = ("train", "encrypt", "upload", "aggregate", "decrypt", "recover", "evaluate")
PACKAGES = (
    "numpy",
    "cryptography",
    "msgpack",
    "tensorflow-cpu",
    "keras",
    "mpi4py",
    "openmpi",
    "dp-accounting",
)


@dataclass(frozen=True)
class LostGroup:
    """A group whose sum was implausible: it is in no mean.

    Attributes:
        contributors: whose updates were in it, sorted.
        reason: one line.
    """

    contributors: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class RoundRecord:
    """One line of metrics.jsonl.

    Attributes:
        round: number, from 1.
        contributors: sorted indices of the clients in the sum; empty when abandoned.
        dropped: sorted indices of the other clients, but for those that were excluded before.
        accuracy: on the test set after the round, 0..1; None where the model has no classes, and
            unless it was evaluated by the end of the round: then an `Evaluation` may follow.
        loss: on the test set; None unless it was evaluated by then.
        train_loss: mean over contributors, from the sum; None when abandoned.
        train_accuracy: the same; None also where the model has no classes.
        samples: training samples of all contributors together, from the sum; None likewise.
        seconds: of the whole round.
        seconds_by_stage: train and encrypt of the slowest contributor as it reports them, upload
            the rest of the wait for contributions, then the server's own stages. With
            differential privacy clients report nothing: train and encrypt are None, and upload is
            the whole wait.
        upload_bytes_per_client: mean over contributors, counted at the socket.
        download_bytes_per_client: mean over the clients that were sent the model.
        decryption_bytes_per_decryptor: request and share, mean over the last active set.
        attempts: decryption attempts.
        saturated: values beyond the quantiser's range, summed over contributors; None with
            differential privacy, as are the metrics of training.
        abandoned: why there is no sum, or None.
        epsilon: of the privacy budget, spent after this round; None without one.
        groups: that the contributors were split into, 0 where nobody splits them.
        implausible: those among them that are in no mean.
        excluded: clients that take no further part, since this round, and why.
    """

    round: int
    contributors: tuple[int, ...]
    dropped: tuple[int, ...]
    accuracy: float | None
    loss: float | None
    train_loss: float | None
    train_accuracy: float | None
    samples: int | None
    seconds: float
    seconds_by_stage: Mapping[str, float | None]
    upload_bytes_per_client: int
    download_bytes_per_client: int
    decryption_bytes_per_decryptor: int
    attempts: int
    saturated: int | None
    abandoned: str | None = None
    epsilon: float | None = None
    groups: int = 0
    implausible: tuple[LostGroup, ...] = ()
    excluded: tuple[Excluded, ...] = ()

    def to_json(self) -> str:
        """Return the line, without its end."""
        return json.dumps(_finite(asdict(self)), allow_nan=False)


@dataclass(frozen=True)
class Evaluation:
    """A line of metrics.jsonl that came after its round's: what the model was worth after it.

    Attributes:
        round: number, from 1.
        accuracy: on the test set, 0..1; None where the model has no classes.
        loss: on the test set.
    """

    round: int
    accuracy: float | None
    loss: float

    def to_json(self) -> str:
        """Return the line, without its end."""
        return json.dumps(_finite(asdict(self)), allow_nan=False)


class Follower(Protocol):
    """Hears of each line that was written."""

    def append(self, record: RoundRecord) -> None:
        """Take a round that has ended."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """Take what came later."""


class History:
    """The records of a run, appended to metrics.jsonl as the rounds end.

    Attributes:
        records: one a round, joined with what was evaluated later.
    """

    def __init__(self, directory: Path, follower: Follower | None = None) -> None:
        """Write into an existing directory."""
        self._follower = follower
        self.records: list[RoundRecord] = []
        self.path = directory / "metrics.jsonl"

    def append(self, record: RoundRecord) -> None:
        """Write the line of a round, whole or not at all; OSError when that fails."""
        self.records.append(record)
        self._write(record.to_json() + "\n")
        if self._follower is not None:
            self._follower.append(record)

    def evaluated(self, evaluation: Evaluation) -> None:
        """Write what the model was worth after an earlier round; OSError when that fails."""
        self.join(evaluation)
        self._write(evaluation.to_json() + "\n")
        if self._follower is not None:
            self._follower.evaluated(evaluation)

    def join(self, evaluation: Evaluation) -> None:
        """Put accuracy and loss where their round is; ValueError when it has not ended."""
        if not 1 <= evaluation.round <= len(self.records):
            raise ValueError(f"round {evaluation.round} is evaluated before it has ended")
        place = evaluation.round - 1
        self.records[place] = replace(
            self.records[place], accuracy=evaluation.accuracy, loss=evaluation.loss
        )

    def _write(self, line: str) -> None:
        """Write one line, whole or not at all, onto the disk."""
        with self.path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(line.encode()) < len(line):
                    raise OSError(ENOSPC, os.strerror(ENOSPC), str(self.path))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)  # never half a line
                raise


def last_evaluated(records: Sequence[RoundRecord]) -> RoundRecord | None:
    """Return the newest record that has a loss."""
    return next((record for record in reversed(records) if record.loss is not None), None)


def excluded_clients(records: Iterable[RoundRecord]) -> set[int]:
    """Return the clients that take no further part after these rounds."""
    return {found.client for record in records for found in record.excluded}


def _finite(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with None for infinities and NaN, which JSON does not know."""
    return {
        key: None if isinstance(value, float) and not isfinite(value) else value
        for key, value in fields.items()
    }


@dataclass
class Summary:
    """The rows of the final table."""

    history: History
    departures: Iterable[Departure] = ()

    def rows(self) -> list[tuple[str, str]]:
        """Return label and text of each row."""
        done = [record for record in self.history.records if record.abandoned is None]
        abandoned = len(self.history.records) - len(done)
        rows = [("rounds", f"{len(done)} completed, {abandoned} abandoned")]
        if done:
            rows += self._averages(done)
        rows.append(("clients lost", self._departures()))
        return rows + _found_out(self.history.records)

    def _averages(self, done: list[RoundRecord]) -> list[tuple[str, str]]:
        last = self.history.records[-1]
        decryption = mean(record.decryption_bytes_per_decryptor for record in done)
        stages = {stage: _median(done, stage) for stage in STAGES}
        return [
            *_score(self.history.records),
            ("seconds a round", f"{median(record.seconds for record in done):.3f} (median)"),
            ("of which", stages_text(stages, 3)),
            (
                "bytes a client and round",
                f"{mean(record.upload_bytes_per_client for record in done):,.0f} up, "
                f"{mean(record.download_bytes_per_client for record in done):,.0f} down, "
                f"{decryption:,.0f} a decryptor",
            ),
            *_told(done, last),
        ]

    def _departures(self) -> str:
        return "\n".join(map(str, self.departures)) or "none"


def stages_text(seconds: Mapping[str, float | None], digits: int) -> str:
    """Return the seconds of each stage for people."""
    return ", ".join(
        f"{stage} not shown" if value is None else f"{stage} {value:.{digits}f}"
        for stage, value in seconds.items()
    )


def _median(records: Sequence[RoundRecord], stage: str) -> float | None:
    known = [record.seconds_by_stage[stage] for record in records]
    told = [value for value in known if value is not None]
    return median(told) if told else None


def _score(records: Sequence[RoundRecord]) -> list[tuple[str, str]]:
    """Return the last accuracy that was evaluated, or loss where the model has no classes."""
    found = last_evaluated(records)
    if found is None or found.loss is None:
        return [("accuracy", "not evaluated")]
    changed = max(record.round for record in records if record.abandoned is None)
    after = "" if found.round >= changed else f", after round {found.round}"
    if found.accuracy is None:
        return [("loss", f"{found.loss:.4f}{after}")]
    return [("accuracy", f"{found.accuracy:.4f} (loss {found.loss:.4f}{after})")]


def _found_out(records: Sequence[RoundRecord]) -> list[tuple[str, str]]:
    """Return what groups lost and who was excluded, where there is any of it."""
    lost = sum(len(record.implausible) for record in records)
    groups = sum(record.groups for record in records)
    rows = [("groups implausible", f"{lost} of {groups}")] if groups else []
    excluded = [
        f"client {found.client} in round {record.round}: {found.reason}"
        for record in records
        for found in record.excluded
    ]
    return [*rows, ("clients excluded", "\n".join(excluded))] if excluded else rows


def _told(done: list[RoundRecord], last: RoundRecord) -> list[tuple[str, str]]:
    """Return how many values were clipped, or, where nobody may tell, the budget that is spent."""
    if last.epsilon is not None:
        return [("epsilon spent", f"{last.epsilon:#.4g}")]
    return [("values clipped", f"{sum(record.saturated or 0 for record in done):,}")]


def write_config(directory: Path, flags: Mapping[str, Any], derived: Mapping[str, Any]) -> None:
    """Write config.json: all flags, what was derived from them, and versions."""
    config = {
        "flags": dict(flags),
        "derived": dict(derived),
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {"processor": platform.machine(), "system": platform.system()},
    }
    text = json.dumps(config, indent=2, default=str)
    (directory / "config.json").write_text(text + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    """Return the installed version of each package that matters."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
