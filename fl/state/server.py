"""What the server keeps to go on after it died: the session, each finished round, each start."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from math import nan
from pathlib import Path
from typing import Any

from fl.model.round_model import RoundModel
from fl.report.metrics import INTERRUPTED, STAGES, Evaluation, History, LostGroup, RoundRecord
from fl.state.directory import PROGRESS, SESSION, STARTED
from mphe import EncodingError, Excluded
from mphe.run import ServerParty, StateError, Vault, pack, unpack


@dataclass(frozen=True)
class Checkpoint:
    """Where training stands after a round; round 0 is before the first.

    `averages` are those of the server's optimizer, b"" before the first round.
    """

    round: int
    model: RoundModel
    averages: bytes = b""


@dataclass(frozen=True)
class ProgressRecord:
    """A checkpoint as bytes, with the line of metrics.jsonl that belongs to it."""

    round: int
    model: bytes
    averages: bytes
    line: bytes


@dataclass(frozen=True)
class StartRecord:
    """The last round whose model may have left the server."""

    round: int


class ServerState:
    """Keeps the session once, and every round twice: when it starts and when it has ended."""

    def __init__(self, vault: Vault, size: int) -> None:
        self.vault = vault
        self._size = size

    def keep_session(self, server: bytes) -> None:
        """Keep the state of the server whose set-up is done."""
        self.vault.write(SESSION, server)

    def session(self, restored: Callable[[bytes], ServerParty]) -> ServerParty:
        """Return the server that was kept; `restored` makes it from its state, or EncodingError.

        Raises:
            StateError: it is damaged, or of other flags.
        """
        state = self.vault.read(SESSION)
        if state is None:
            raise self.vault.refusal(SESSION, "it is missing")
        try:
            return restored(state)
        except EncodingError as error:
            raise self.vault.refusal(SESSION, str(error)) from error

    def starting(self, round: int) -> None:
        """Keep that a round's number is used up; OSError when it cannot be written."""
        self.vault.write(STARTED, pack(StartRecord(round)))

    def started(self) -> int:
        """Return the last round that was started; 0 before the first."""
        text = self.vault.read(STARTED)
        try:
            return unpack(text, StartRecord).round if text is not None else 0
        except EncodingError as error:
            raise self.vault.refusal(STARTED, str(error)) from error

    def finished(self, model: RoundModel, record: RoundRecord, averages: bytes = b"") -> None:
        """Keep the model and the optimizer's averages, before the line is in metrics.jsonl."""
        line = record.to_json().encode()
        progress = ProgressRecord(record.round, model.to_bytes(), averages, line)
        self.vault.write(PROGRESS, pack(progress))

    def restore(self, history: History) -> Checkpoint | None:
        """Return the last checkpoint, None before the first; make the history agree with it.

        Raises:
            StateError: files are damaged, or do not belong together.
        """
        text = self.vault.read(PROGRESS)
        try:
            if text is None:
                restore_history(history, None)
                return None
            progress = unpack(text, ProgressRecord)
            last = read_record(progress.line.decode())
            model = RoundModel.from_bytes(progress.model, self._size)
        except (EncodingError, ValueError) as error:
            raise self.vault.refusal(PROGRESS, str(error)) from error
        if last.round != progress.round or progress.round > self.started():
            raise self.vault.refusal(PROGRESS, "its round does not fit the other files")
        restore_history(history, last)
        return Checkpoint(progress.round, model, progress.averages)


def restore_history(history: History, last: RoundRecord | None) -> None:
    """Read metrics.jsonl up to the last finished round, and mend its end.

    Raises:
        StateError: it does not hold rounds 1, 2, …, or not as many.
    """
    path, done = history.path, last.round if last is not None else 0
    text = path.read_bytes() if path.exists() else b""
    lines = text[: text.rfind(b"\n") + 1]
    if lines != text:
        os.truncate(path, len(lines))
    history.records = []
    try:
        for line in lines.splitlines():
            _take_line(history, line.decode())
    except ValueError as error:
        raise _foreign(path, str(error)) from None
    ended = len(history.records)
    if ended not in (done - 1, done):
        raise _foreign(path, f"it holds {ended} rounds where {done} have ended")
    if last is not None and ended < done:
        history.append(last)


def _take_line(history: History, line: str) -> None:
    """Put one line where it belongs; ValueError when it is none, or not the next one."""
    if (evaluation := read_evaluation(line)) is not None:
        history.join(evaluation)
        return
    record = read_record(line)
    if record.round != len(history.records) + 1:
        raise ValueError("it does not hold every round once")
    history.records.append(record)


def _foreign(path: Path, reason: str) -> StateError:
    return StateError(
        f"{path} is not what this session wrote ({' '.join(reason.split())}): restore it, or start "
        "without --resume in another --state_dir"
    )


def read_evaluation(line: str) -> Evaluation | None:
    """Read a line that came after its round's; None when it is another, ValueError when damaged."""
    values = json.loads(line)
    if not isinstance(values, dict) or sorted(values) != ["accuracy", "loss", "round"]:
        return None
    if type(values["round"]) is not int:
        raise ValueError("round is no int")
    loss = _number(values["loss"])
    # What is not finite has no number in the file.
    return Evaluation(values["round"], _number(values["accuracy"]), nan if loss is None else loss)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def read_record(line: str) -> RoundRecord:
    """Read one line of metrics.jsonl; ValueError when it is none."""
    values = json.loads(line)
    names = [field.name for field in fields(RoundRecord)]
    if not isinstance(values, dict) or sorted(values) != sorted(names):
        raise ValueError("a line has other fields than this version writes")
    kinds: dict[str, Any] = {"round": int, "contributors": list, "dropped": list}
    kinds |= {"groups": int, "implausible": list, "excluded": list}
    for key, kind in kinds.items():
        if type(values[key]) is not kind:
            raise ValueError(f"{key} is no {kind.__name__}")
    for key in ("contributors", "dropped"):
        values[key] = tuple(values[key])
    try:
        lost, excluded = values["implausible"], values["excluded"]
        values["implausible"] = tuple(
            LostGroup(tuple(item["contributors"]), item["reason"]) for item in lost
        )
        values["excluded"] = tuple(Excluded(item["client"], item["reason"]) for item in excluded)
    except (KeyError, TypeError):
        raise ValueError("it does not say who was found out") from None
    for key in ("accuracy", "loss"):
        values[key] = _number(values[key])
    return RoundRecord(**values)


def interrupted(number: int, clients: Iterable[int]) -> RoundRecord:
    """Return the record of a round that was lost with the server."""
    return RoundRecord(
        round=number,
        contributors=(),
        dropped=tuple(clients),
        accuracy=None,
        loss=None,
        train_loss=None,
        train_accuracy=None,
        samples=None,
        seconds=0.0,
        seconds_by_stage=dict.fromkeys(STAGES, 0.0),
        upload_bytes_per_client=0,
        download_bytes_per_client=0,
        decryption_bytes_per_decryptor=0,
        attempts=0,
        saturated=0,
        abandoned=INTERRUPTED,
    )
