"""What rank 0 shows: a line a round, a live view when it is a terminal, and the final table."""

import os
import sys
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from fl.config.place import find_place
from fl.report.metrics import Evaluation, RoundRecord, Summary
from fl.report.view import View
from mphe.run import name_clients

REFRESHES_PER_SECOND = 2
LAUNCHERS = ("mpirun", "mpiexec", "prterun")


class Display:
    """Writes to the terminal, or plain lines to a pipe or file."""

    def __init__(self, rounds: int, console: Console | None = None, quiet: bool = False) -> None:
        """Expect so many rounds; `quiet` leaves only warnings and the final table."""
        self._console = console or Console(
            highlight=False, soft_wrap=True, force_terminal=seen_on_terminal()
        )
        self._terminal = None if console else launchers_terminal()
        self._quiet = quiet
        self._rounds = rounds
        self._view = View(rounds)
        self._news: Evaluation | None = None
        self._live: Live | None = None
        if self._console.is_terminal and not quiet:
            self._fit()
            self._live = Live(
                # mpirun passes on whole lines only: an empty one at the end, or there is no border.
                Group(self._view, ""),
                console=self._console,
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=True,
            )
            self._live.start()

    def say(self, line: str) -> None:
        """Show one line, unless nobody wants to know."""
        if not self._quiet:
            self._console.print(line, markup=False)

    def warn(self, line: str) -> None:
        """Show one line that everybody should see."""
        self._console.print(line, markup=False)

    def round_ended(self, record: RoundRecord) -> None:
        """Show a finished or abandoned round."""
        show = self.say if record.abandoned is None else self.warn
        if record.loss is not None:
            self._news = Evaluation(record.round, record.accuracy, record.loss)
        show(_line(record, self._rounds, self._news))
        for line in _lost_groups(record):
            self.warn(line)
        self._news = None
        self._view.took(record)
        if self._live is not None:
            self._fit()
            self._live.refresh()

    def evaluated(self, evaluation: Evaluation) -> None:
        """Show what the model was worth after an earlier round, with the next one that ends."""
        self._news = evaluation
        self._view.evaluated(evaluation)

    def urge(self, line: str) -> None:
        """Show one line to stderr while there is time: mpirun forwards nothing once it stops."""
        self.close()
        sys.stdout.flush()
        shown = ("\n\x1b[?25h" if self._terminal else "") + line + "\n"  # the cursor is back
        if not _write_past_launcher(shown):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def finish(self, summary: Summary, title: str) -> None:
        """Show the table of the whole run."""
        self.close()
        table = Table(title=title, show_header=False, title_justify="left")
        for label, text in summary.rows():
            table.add_row(label, text)
        self._console.print(table)

    def close(self) -> None:
        """Take the view away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _fit(self) -> None:
        """Follow the width of the terminal that mpirun writes to; rich follows that of others."""
        if self._terminal is None:
            return
        try:
            device = os.open(self._terminal, os.O_RDONLY | os.O_NOCTTY)
        except OSError:
            return
        try:
            columns, lines = os.get_terminal_size(device)
        except OSError:
            return
        finally:
            os.close(device)
        if columns and lines:
            self._console.size = (columns, lines)


def seen_on_terminal() -> bool:
    """Return whether a person watches what this process prints.

    mpirun gives its ranks a pseudo-terminal even when its own output goes to a file, so its own
    standard output decides.
    """
    if not sys.stdout.isatty():
        return False
    return find_place(os.environ) is None or launchers_terminal() is not None


def launchers_terminal() -> str | None:
    """Return the terminal on which mpirun shows what its ranks print, None where there is none."""
    if find_place(os.environ) is None:
        return None
    try:
        target = os.readlink(f"/proc/{os.getppid()}/fd/1")
    except OSError:
        return None
    return target if target.startswith(("/dev/pts/", "/dev/tty")) else None


def _write_past_launcher(text: str) -> bool:
    """Write to where mpirun writes what its ranks say to stderr; return whether that worked."""
    if find_place(os.environ) is None:
        return False
    parent = Path("/proc") / str(os.getppid())
    try:
        if (parent / "comm").read_text().strip() not in LAUNCHERS:
            return False
        if os.readlink(parent / "fd/2") == os.devnull:
            return False
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK
        target = os.open(parent / "fd/2", flags)
        try:
            return os.write(target, text.encode()) > 0
        finally:
            os.close(target)
    except OSError:
        return False


def _line(record: RoundRecord, rounds: int, news: Evaluation | None) -> str:
    place = f"round {record.round:>{len(str(rounds))}}/{rounds}"
    absent = f", without {', '.join(map(str, record.dropped))}" if record.dropped else ""
    spent = f", epsilon {record.epsilon:#.4g}" if record.epsilon is not None else ""
    if record.abandoned is not None:
        return f"{place}  abandoned: {record.abandoned}{absent}{spent}"
    whole = record.groups - len(record.implausible)
    parts = f" in {whole} of {record.groups} groups" if record.groups else ""
    again = f", {record.attempts} decryption attempts" if record.attempts > 1 else ""
    return (
        f"{place}  {_score(record, news)}"
        f"{record.seconds:.2f} s  sum of {len(record.contributors)} updates{parts}{absent}"
        f"{again}{spent}"
    )


def _lost_groups(record: RoundRecord) -> list[str]:
    """Return a line for each group that is in no mean."""
    return [
        f"round {record.round}: the sum of {name_clients(group.contributors)} is implausible: "
        f"{group.reason}"
        for group in record.implausible
    ]


def _score(record: RoundRecord, news: Evaluation | None) -> str:
    """Return accuracy and loss, and of which round if it is not this one; nothing if not known."""
    if news is None:
        return ""
    accuracy = "" if news.accuracy is None else f"accuracy {news.accuracy:.4f}  "
    after = "" if news.round == record.round else f" (round {news.round})"
    return f"{accuracy}loss {news.loss:.4f}{after}  "
