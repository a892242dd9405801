"""The live view of a run on a terminal: one small panel beneath the lines that scroll."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from rich.console import RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fl.report.metrics import STAGES, Evaluation, RoundRecord, stages_text

CLIENT_STAGES = STAGES[:3]
SERVER_STAGES = STAGES[3:]
OBSERVED = 20
"""Rounds from whose duration the time left is foretold."""


class View:
    """What is known of the run, drawn anew whenever it is rendered; never above eight lines."""

    def __init__(self, rounds: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Expect so many rounds."""
        self._rounds = rounds
        self._clock = clock
        self._began = self._last_end = clock()
        self._records: list[RoundRecord] = []
        self._score: Evaluation | None = None

    def took(self, record: RoundRecord) -> None:
        """Take a round that has ended."""
        self._records.append(record)
        self._last_end = self._clock()
        if record.loss is not None:
            self.evaluated(Evaluation(record.round, record.accuracy, record.loss))

    def evaluated(self, evaluation: Evaluation) -> None:
        """Take what the model was worth after a round."""
        self._score = evaluation

    def __rich__(self) -> RenderableType:
        """Return the panel."""
        done = self._records[-1].round if self._records else 0
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        grid.expand = True
        grid.add_row("rounds", ProgressBar(total=self._rounds, completed=done))
        for label, text in self._rows():
            grid.add_row(label, Text(text))
        return Panel(grid, title=self._title(done), title_align="left", border_style="dim")

    def _title(self, done: int) -> Text:
        now = self._clock()
        left = seconds_left(self._records, self._rounds, now - self._last_end)
        rest = "" if left is None else f", about {clock_text(left)} left"
        words = f"round {done} of {self._rounds}, {clock_text(now - self._began)} gone{rest}"
        return Text(words, style="bold not dim")

    def _rows(self) -> list[tuple[str, str]]:
        if not self._records:
            return [("", "the first round has not ended yet")]
        last = self._records[-1]
        stages = last.seconds_by_stage
        return [
            ("model", _model(last, self._score)),
            ("clients", _clients(last, self._records)),
            ("bytes", _bytes(last)),
            ("seconds", f"{last.seconds:.2f}: {_stages(stages, CLIENT_STAGES)},"),
            ("", _stages(stages, SERVER_STAGES)),
        ]


def seconds_left(records: Sequence[RoundRecord], rounds: int, since: float) -> float | None:
    """Return the time until the last round ends, None while nothing is known.

    Args:
        records: of the rounds so far.
        rounds: of the whole run.
        since: seconds since the last of them ended.
    """
    # A round that was lost with an earlier server took no time here.
    known = [record.seconds for record in records[-OBSERVED:] if record.seconds > 0]
    if not known:
        return None
    return max(0.0, (rounds - records[-1].round) * median(known) - since)


def clock_text(seconds: float) -> str:
    """Return 1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _model(record: RoundRecord, score: Evaluation | None) -> str:
    if score is None:
        tested = "not evaluated yet"
    else:
        accuracy = "" if score.accuracy is None else f"accuracy {score.accuracy:.4f}, "
        after = "" if score.round == record.round else f" in round {score.round}"
        tested = f"{accuracy}loss {score.loss:.4f}{after}"
    known = (record.train_accuracy, record.train_loss)
    training = [f"{value:.4f}" for value in known if value is not None]
    own = f" (training {', '.join(training)})" if training else ""
    spent = "" if record.epsilon is None else f", epsilon {record.epsilon:#.4g}"
    return f"{tested}{own}{spent}"


def _clients(record: RoundRecord, records: Sequence[RoundRecord]) -> str:
    counted, missing = len(record.contributors), record.dropped
    absent = f"; without {', '.join(map(str, missing))}" if missing else ""
    excluded = sum(len(past.excluded) for past in records)
    out = f", {excluded} excluded" if excluded else ""
    abandoned = sum(past.abandoned is not None for past in records)
    dropouts = sum(len(past.dropped) for past in records if past.abandoned is None)
    # The names come last: there may be many, and a narrow terminal cuts them off.
    return (
        f"{counted} of {counted + len(missing)} in the sum; so far {dropouts} dropouts, "
        f"{abandoned} rounds abandoned{out}{absent}"
    )


def _bytes(record: RoundRecord) -> str:
    return (
        f"{record.upload_bytes_per_client:,} up, {record.download_bytes_per_client:,} down, "
        f"{record.decryption_bytes_per_decryptor:,} a decryptor"
    )


def _stages(seconds: Mapping[str, float | None], names: Sequence[str]) -> str:
    return stages_text({name: seconds.get(name, 0.0) for name in names}, 2)
