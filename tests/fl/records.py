"""Records of rounds that never happened, and a disk that has no room for them."""

import dataclasses
from typing import Any, Self

from fl.report.metrics import STAGES, LostGroup, RoundRecord
from mphe import Excluded

CLIENTS = (1, 2, 3, 4)
LOST = LostGroup((3, 4), "values out of range")
OUT = Excluded(3, "it cheated")


def record(round: int, contributors: tuple[int, ...] = CLIENTS, **fields: Any) -> RoundRecord:
    """Return a round of four clients; without contributors it is an abandoned one."""
    abandoned = None if contributors else "1 updates came, 2 are needed"
    whole = RoundRecord(
        round=round,
        contributors=contributors,
        dropped=tuple(index for index in CLIENTS if index not in contributors),
        accuracy=round / 100,
        loss=2.0 / round,
        train_loss=3.0 / round if contributors else None,
        train_accuracy=round / 200 if contributors else None,
        samples=1024 if contributors else None,
        seconds=0.5,
        seconds_by_stage={stage: place / 100 for place, stage in enumerate(STAGES, start=1)},
        upload_bytes_per_client=557_742,
        download_bytes_per_client=798_670,
        decryption_bytes_per_decryptor=69_632,
        attempts=1,
        saturated=0,
        abandoned=abandoned,
    )
    return dataclasses.replace(whole, **fields)


class FullDisk:
    """A file that takes half of what it is given, and says so or not."""

    def __init__(self, file: Any, error: bool) -> None:
        self._file, self._error = file, error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        written = int(self._file.write(data[: len(data) // 2]))
        if self._error:
            raise OSError(28, "No space left on device")
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
