"""Reads what runs left behind, finished or not: config.json and metrics.jsonl, nothing else."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl.config.flags import UsageError
from fl.config.resolve import is_default
from fl.config.schemes import describe_sums

OWN = frozenset(
    [
        "seed",
        "output",
        "server_address",
        "quiet",
        "evaluate_every",
        "state_dir",
        "resume",
        "role",
        "roster",
        "identity",
    ]
)
"""Flags that say where and how a run is played, not what it learns; and the seed."""


@dataclass(frozen=True)
class Line:
    """What a comparison needs of one round.

    Attributes:
        round, seconds, upload_bytes_per_client, contributors, dropped, abandoned: as in
            metrics.jsonl.
        accuracy, loss: None where not evaluated.
        implausible: groups whose sums were.
        excluded: clients that take no further part, since this round.
    """

    round: int
    accuracy: float | None
    loss: float | None
    seconds: float
    upload_bytes_per_client: float
    contributors: tuple[int, ...]
    dropped: tuple[int, ...]
    abandoned: str | None
    implausible: int = 0
    excluded: tuple[int, ...] = ()


@dataclass(frozen=True)
class PastRun:
    """One directory of results."""

    name: str
    flags: Mapping[str, Any]
    lines: Sequence[Line]

    @property
    def planned(self) -> int:
        """Rounds that were asked for; 0 when the flags do not say."""
        wanted = self.flags.get("num_iterations")
        return wanted if type(wanted) is int else 0

    @property
    def completed(self) -> list[Line]:
        """Rounds that had a sum."""
        return [line for line in self.lines if line.abandoned is None]

    @property
    def finished(self) -> bool:
        """Whether all rounds were run and some had a sum."""
        return len(self.lines) >= self.planned and bool(self.completed)

    @property
    def sums(self) -> str:
        """Say how updates were summed up: plain, mphe hybrid, mphe direct."""
        flags = self.flags
        return describe_sums(str(flags.get("aggregation", "?")), str(flags.get("encryption", "")))

    @property
    def group(self) -> tuple[tuple[str, str], ...]:
        """What runs share that differ in their seeds only."""
        flags = {key: value for key, value in self.flags.items() if key not in OWN}
        return tuple(sorted((key, json.dumps(value)) for key, value in flags.items()))

    def differing(self, names: Sequence[str]) -> str:
        """Return these flags and their values in words, as far as they are not the default."""
        given = {name: self.flags[name] for name in names if name in self.flags}
        return ", ".join(
            f"{name} {value}" for name, value in given.items() if not is_default(self.flags, name)
        )


def find_runs(directory: Path) -> list[Path]:
    """Return a run's directory, or those of all runs below it, by name; itself if there is none."""
    if (directory / "config.json").exists():
        return [directory]
    below = sorted(path.parent for path in directory.glob("**/config.json"))
    return below or [directory]


def read_run(directory: Path) -> PastRun:
    """Read a run; UsageError, in one line, when the directory holds none."""
    config = directory / "config.json"
    try:
        flags = json.loads(config.read_text(encoding="utf-8"))["flags"]
        if not isinstance(flags, dict):
            raise TypeError
    except OSError as error:
        raise UsageError(
            f"cannot read {config} ({error.strerror}): name the --output directory of a run"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"{config} was not written by this program: name the --output directory of a run"
        ) from None
    return PastRun(str(directory), flags, _read_lines(directory / "metrics.jsonl"))


def _read_lines(path: Path) -> list[Line]:
    """Return the whole lines; the last one may be torn, since a run may still be writing it."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []  # no round has ended
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror}): leave this run out") from None
    lines: dict[int, Line] = {}
    for number, line in enumerate(text[: text.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            _take_line(lines, json.loads(line))
        except (ValueError, KeyError, TypeError, OverflowError):
            raise UsageError(
                f"line {number} of {path} is damaged: mend or remove it, or leave this run out"
            ) from None
    return list(lines.values())


def _take_line(lines: dict[int, Line], values: Any) -> None:
    """Take one line; ValueError, KeyError, TypeError or OverflowError when it is none."""
    number = int(values["round"])
    if set(values) == {"round", "accuracy", "loss"}:
        # Came after its round's.
        accuracy, loss = _number(values["accuracy"]), _number(values["loss"])
        lines[number] = dataclasses.replace(lines[number], accuracy=accuracy, loss=loss)
    else:
        lines[number] = _read_line(values)


def _read_line(values: Any) -> Line:
    return Line(
        round=int(values["round"]),
        accuracy=_number(values["accuracy"]),
        loss=_number(values["loss"]),
        seconds=float(values["seconds"]),
        upload_bytes_per_client=float(values["upload_bytes_per_client"]),
        contributors=tuple(int(index) for index in values["contributors"]),
        dropped=tuple(int(index) for index in values["dropped"]),
        abandoned=None if values["abandoned"] is None else str(values["abandoned"]),
        # Runs of older versions do not have these.
        implausible=len(values.get("implausible", [])),
        excluded=tuple(int(found["client"]) for found in values.get("excluded", [])),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def group_runs(runs: Sequence[PastRun]) -> list[list[PastRun]]:
    """Return the runs in groups that differ in their seeds only, in the order given."""
    found: dict[tuple[tuple[str, str], ...], list[PastRun]] = {}
    for run in runs:
        found.setdefault(run.group, []).append(run)
    return list(found.values())


def differences(runs: Sequence[PastRun]) -> list[str]:
    """Return the flags, beside those of the columns, in which the groups differ."""
    names = sorted(
        {name for run in runs for name in run.flags} - OWN - {"aggregation", "encryption"}
    )
    return [name for name in names if len({json.dumps(run.flags.get(name)) for run in runs}) > 1]
