"""What rank 0 shows: a line a round, a bar when it is a terminal, and the final table."""

import os
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from fl.launch import find_place
from fl.metrics import RoundRecord, Summary


class Display:
    """Writes to the terminal, or plain lines to a pipe or file."""

    def __init__(self, rounds: int, console: Console | None = None) -> None:
        """Expect so many rounds."""
        self._console = console or Console(
            highlight=False, soft_wrap=True, force_terminal=seen_on_terminal()
        )
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("round {task.completed}/{task.total}"),
                BarColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=rounds)
            self._bar.start()
        self._rounds = rounds

    def say(self, line: str) -> None:
        """Show one line."""
        self._console.print(line, markup=False)

    def round_ended(self, record: RoundRecord) -> None:
        """Show a finished or abandoned round."""
        self.say(_line(record, self._rounds))
        if self._bar is not None:
            self._bar.update(
                self._task, completed=record.round, description=f"accuracy {record.accuracy:.3f}"
            )

    def finish(self, summary: Summary, title: str) -> None:
        """Show the table of the whole run."""
        self.close()
        table = Table(title=title, show_header=False, title_justify="left")
        for label, text in summary.rows():
            table.add_row(label, text)
        self._console.print(table)

    def close(self) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def seen_on_terminal() -> bool:
    """Return whether a person watches what this process prints.

    mpirun gives its ranks a pseudo-terminal even when its own output goes to a file, so its own
    standard output decides.
    """
    if not sys.stdout.isatty():
        return False
    if find_place(os.environ) is None:
        return True
    try:
        target = os.readlink(f"/proc/{os.getppid()}/fd/1")
    except OSError:
        return False
    return target.startswith(("/dev/pts/", "/dev/tty"))


def _line(record: RoundRecord, rounds: int) -> str:
    place = f"round {record.round:>{len(str(rounds))}}/{rounds}"
    absent = f", without {', '.join(map(str, record.dropped))}" if record.dropped else ""
    spent = f", epsilon {record.epsilon:.4g}" if record.epsilon is not None else ""
    if record.abandoned is not None:
        return f"{place}  abandoned: {record.abandoned}{absent}{spent}"
    again = f", {record.attempts} decryption attempts" if record.attempts > 1 else ""
    return (
        f"{place}  accuracy {record.accuracy:.4f}  loss {record.loss:.4f}  "
        f"{record.seconds:.2f} s  sum of {len(record.contributors)} updates{absent}{again}{spent}"
    )
