"""Writes the rounds of a run as TensorBoard events, one record a round.

Through TensorBoard's own record writer, which needs no TensorFlow, onto a file of ours: its
EventFileWriter writes in a thread of its own, and would tell of a full disk too late.
"""

import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from errno import ENOSPC
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import IO

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from fl.report.metrics import Evaluation, RoundRecord

FORMAT = "brain.Event:2"
"""What the first event of a file has to say."""


class Events:
    """A new file of events, made with the first round, so that runs without one leave none."""

    def __init__(self, directory: Path) -> None:
        """Write into a directory that need not exist yet."""
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self.path = directory / name
        self._started = False

    def append(self, record: RoundRecord) -> None:
        """Write the numbers of one round, all or none; OSError when that fails."""
        self._append(record.round, _scalars(record))

    def evaluated(self, evaluation: Evaluation) -> None:
        """Write what the model was worth after an earlier round, as `append` does."""
        found = {"accuracy": evaluation.accuracy, "loss": evaluation.loss}
        self._append(evaluation.round, _known(found))

    def _append(self, round: int, scalars: Iterable[tuple[str, float]]) -> None:
        events = [] if self._started else [Event(wall_time=time.time(), file_version=FORMAT)]
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars]
        events.append(Event(wall_time=time.time(), step=round, summary=Summary(value=values)))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            _write_all(file, [event.SerializeToString() for event in events], self.path)
        self._started = True


def _write_all(file: IO[bytes], events: list[bytes], path: Path) -> None:
    """Append records to a file, all or none; OSError when that fails."""
    whole = BytesIO()
    writer = RecordWriter(whole)
    for event in events:
        writer.write(event)
    size = file.tell()
    try:
        if file.write(whole.getvalue()) < whole.tell():
            raise OSError(ENOSPC, os.strerror(ENOSPC), str(path))
    except OSError:
        file.truncate(size)
        raise


def _scalars(record: RoundRecord) -> Iterator[tuple[str, float]]:
    """Return tag and value of what the round has; an abandoned one has no training figures."""
    found = {
        "accuracy": record.accuracy,
        "loss": record.loss,
        "train_accuracy": record.train_accuracy,
        "train_loss": record.train_loss,
        "epsilon": record.epsilon,
        "contributors": len(record.contributors),
        "groups/implausible": len(record.implausible) if record.groups else None,
        "seconds/round": record.seconds,
        **{f"seconds/{stage}": value for stage, value in record.seconds_by_stage.items()},
        "bytes/upload_per_client": record.upload_bytes_per_client,
        "bytes/download_per_client": record.download_bytes_per_client,
        "bytes/decryption_per_decryptor": record.decryption_bytes_per_decryptor,
    }
    return _known(found)


def _known(found: Mapping[str, float | None]) -> Iterator[tuple[str, float]]:
    for tag, value in found.items():
        if value is not None and isfinite(value):
            yield tag, float(value)
