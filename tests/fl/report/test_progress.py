"""What the server shows: plain lines in a pipe, a panel beneath them on a terminal, or little."""

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from fl.report.metrics import Evaluation, History, Summary
from fl.report.progress import Display
from fl.report.view import View, clock_text, seconds_left
from mphe.run.departures import Departure
from tests.fl.records import LOST, OUT, record


class Clock:
    """Stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def render(view: View, width: int = 100, height: int = 40) -> list[str]:
    file = StringIO()
    # As progress makes it: what is printed with soft_wrap must not make the panel overflow.
    console = Console(file=file, width=width, height=height, soft_wrap=True, color_system=None)
    console.print(view, soft_wrap=False)
    return file.getvalue().splitlines()


def played(directory: Path, quiet: bool, terminal: bool, width: int = 100) -> str:
    """Return what a run of three rounds shows."""
    file = StringIO()
    console = Console(
        file=file, force_terminal=terminal, width=width, height=40, soft_wrap=True, highlight=False
    )
    display = Display(3, console, quiet)
    history = History(directory)
    display.say("model cnn")
    for number, clients in ((1, (1, 2, 3, 4)), (2, (1, 2, 4)), (3, ())):
        if number == 2:
            display.warn("client 3 is gone: connection lost")
        history.append(record(number, clients))
        display.round_ended(history.records[-1])
    display.finish(Summary(history, [Departure(3, 2, "connection lost")]), "results in runs/x")
    return file.getvalue()


def test_a_pipe_gets_plain_lines(tmp_path: Path) -> None:
    text = played(tmp_path, quiet=False, terminal=False)
    assert text.splitlines()[:5] == [
        "model cnn",
        "round 1/3  accuracy 0.0100  loss 2.0000  0.50 s  sum of 4 updates",
        "client 3 is gone: connection lost",
        "round 2/3  accuracy 0.0200  loss 1.0000  0.50 s  sum of 3 updates, without 3",
        "round 3/3  abandoned: 1 updates came, 2 are needed, without 1, 2, 3, 4",
    ]
    assert "\x1b" not in text and "gone, about" not in text
    assert "2 completed, 1 abandoned" in text and "results in runs/x" in text


def test_quiet_leaves_warnings_and_the_summary(tmp_path: Path) -> None:
    for terminal in (False, True):
        directory = tmp_path / str(terminal)
        directory.mkdir()
        lines = played(directory, quiet=True, terminal=terminal).splitlines()
        assert lines[:2] == [
            "client 3 is gone: connection lost",
            "round 3/3  abandoned: 1 updates came, 2 are needed, without 1, 2, 3, 4",
        ]
        assert "results in runs/x" in lines[2]
        assert any("2 completed, 1 abandoned" in line for line in lines)
        assert not any("sum of" in line or "model cnn" in line for line in lines)


def test_a_terminal_gets_the_panel_too_and_loses_it_at_the_end(tmp_path: Path) -> None:
    text = played(tmp_path, quiet=False, terminal=True)
    assert "round 1/3  accuracy 0.0100" in text  # the lines still scroll above
    assert "round 1 of 3" in text and "accuracy 0.0200, loss 1.0000 (training 0.0100" in text
    assert "client 3 is gone: connection lost" in text
    end = text[text.index("results in runs/x") :]
    assert "round 3 of 3" not in end and "\x1b[?25h" in text  # the cursor is back


def test_the_panel_says_what_a_round_cost() -> None:
    clock = Clock()
    view = View(12, clock)
    assert any("the first round has not ended yet" in line for line in render(view))
    clock.now = 61.0
    view.took(record(1))
    view.took(record(2, ()))
    view.took(record(3, (1, 2, 4)))
    clock.now = 62.5
    title, bar, model, clients, sizes, seconds, server, end = render(view)
    # Nine rounds of half a second, of which one and a half seconds have passed.
    assert "round 3 of 12, 1:02 gone, about 0:03 left" in title
    assert "━" in bar
    assert "accuracy 0.0300, loss 0.6667 (training 0.0150, 1.0000)" in model
    assert "3 of 4 in the sum; so far 1 dropouts, 1 rounds abandoned; without 3" in clients
    assert "557,742 up, 798,670 down, 69,632 a decryptor" in sizes
    assert "0.50: train 0.01, encrypt 0.02, upload 0.03" in seconds
    assert "aggregate 0.04, decrypt 0.05, recover 0.06, evaluate 0.07" in server
    assert end.startswith("╰")


@pytest.mark.parametrize("width", [20, 40, 79, 200])
def test_the_panel_fits_a_narrow_terminal(width: int) -> None:
    view = View(10)
    view.took(record(1, (1,)))
    lines = render(view, width)
    assert len(lines) == 8
    assert {len(line) for line in lines} == {width}


def test_an_evaluation_that_comes_later_is_shown_with_its_round(tmp_path: Path) -> None:
    file = StringIO()
    display = Display(3, Console(file=file, width=100, highlight=False, soft_wrap=True))
    history, view = History(tmp_path), View(3)
    for number in (1, 2, 3):
        history.append(record(number, accuracy=None, loss=None))
        display.round_ended(history.records[-1])
        view.took(history.records[-1])
        if number == 1:
            assert "model    not evaluated yet (training 0.0050, 3.0000)" in "\n".join(render(view))
            history.evaluated(Evaluation(1, 0.25, 1.5))
            display.evaluated(Evaluation(1, 0.25, 1.5))
            view.evaluated(Evaluation(1, 0.25, 1.5))
    assert file.getvalue().splitlines() == [
        "round 1/3  0.50 s  sum of 4 updates",
        "round 2/3  accuracy 0.2500  loss 1.5000 (round 1)  0.50 s  sum of 4 updates",
        "round 3/3  0.50 s  sum of 4 updates",
    ]
    assert "accuracy 0.2500, loss 1.5000 in round 1 (training" in "\n".join(render(view))
    rows = dict(Summary(history).rows())
    assert rows["accuracy"] == "0.2500 (loss 1.5000, after round 1)"
    assert dict(Summary(History(tmp_path)).rows()).keys() == {"rounds", "clients lost"}


def test_every_line_of_the_panel_ends(tmp_path: Path) -> None:
    """Under mpirun only whole lines reach the terminal: the border needs an end of its own."""
    text = played(tmp_path, quiet=False, terminal=True)
    borders = re.findall("╰─*╯((?:\x1b\\[0m)?\n)?", text)
    assert borders and all(borders)


def test_what_clients_hide_is_not_shown_as_zero(tmp_path: Path) -> None:
    hidden = dict(record(1).seconds_by_stage) | {"train": None, "encrypt": None}
    history, view = History(tmp_path), View(1)
    history.append(record(1, seconds_by_stage=hidden, epsilon=2.5))
    view.took(history.records[0])
    rows = dict(Summary(history).rows())
    assert rows["of which"].startswith("train not shown, encrypt not shown, upload 0.030, ")
    assert rows["epsilon spent"] == "2.500"
    assert "0.50: train not shown, encrypt not shown, upload 0.03" in "\n".join(render(view))


def test_a_model_without_classes_shows_no_accuracy(tmp_path: Path) -> None:
    regression = record(1, accuracy=None, train_accuracy=None)
    view = View(1)
    view.took(regression)
    file = StringIO()
    display = Display(1, Console(file=file, width=100, highlight=False, soft_wrap=True))
    history = History(tmp_path)
    history.append(regression)
    display.round_ended(regression)
    display.finish(Summary(history), "results")
    assert "round 1/1  loss 2.0000  0.50 s" in file.getvalue()
    assert "loss 2.0000 (training 3.0000)" in "\n".join(render(view))
    for text in (file.getvalue(), "\n".join(render(view))):
        assert "nan" not in text and "accuracy" not in text
    assert '"accuracy": null' in (tmp_path / "metrics.jsonl").read_text()


def test_a_privacy_budget_is_shown_as_it_is_spent(tmp_path: Path) -> None:
    private = record(1, train_loss=None, train_accuracy=None, saturated=None, epsilon=0.5)
    view = View(2)
    view.took(private)
    assert "loss 2.0000, epsilon 0.5000" in "\n".join(render(view))
    file = StringIO()
    display = Display(2, Console(file=file, width=100, highlight=False, soft_wrap=True))
    display.round_ended(private)
    assert file.getvalue().endswith("sum of 4 updates, epsilon 0.5000\n")


def test_lost_groups_and_who_was_excluded_are_shown(tmp_path: Path) -> None:
    file = StringIO()
    display = Display(2, Console(file=file, width=100, soft_wrap=True, highlight=False))
    history = History(tmp_path)
    history.append(record(1, (1, 2), groups=2, implausible=(LOST,)))
    history.append(record(2, (1, 2, 4), groups=2, excluded=(OUT,)))
    for one in history.records:
        display.round_ended(one)
    assert file.getvalue().splitlines() == [
        "round 1/2  accuracy 0.0100  loss 2.0000  0.50 s  sum of 2 updates in 1 of 2 groups, "
        "without 3, 4",
        "round 1: the sum of clients 3, 4 is implausible: values out of range",
        "round 2/2  accuracy 0.0200  loss 1.0000  0.50 s  sum of 3 updates in 2 of 2 groups, "
        "without 3",
    ]
    rows = dict(Summary(history).rows())
    assert rows["groups implausible"] == "1 of 4"
    assert rows["clients excluded"] == "client 3 in round 2: it cheated"
    view = View(2, Clock())
    for one in history.records:
        view.took(one)
    assert "0 rounds abandoned, 1 excluded" in " ".join(render(view))


def test_without_groups_nothing_is_said_of_them(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.append(record(1))
    assert not {"groups implausible", "clients excluded"} & set(dict(Summary(history).rows()))


def test_time_left() -> None:
    records = [record(1, seconds=9.0), record(2, seconds=1.0), record(3, seconds=1.0)]
    assert seconds_left(records, 10, 0.0) == pytest.approx(7.0)
    assert seconds_left(records, 10, 2.5) == pytest.approx(4.5)
    assert seconds_left(records, 3, 2.5) == 0.0
    # What was lost with an earlier server took no time here.
    assert seconds_left([record(1, (), seconds=0.0)], 10, 1.0) is None
    assert seconds_left([], 10, 1.0) is None
    assert [clock_text(seconds) for seconds in (0.9, 61, 3723)] == ["0:00", "1:01", "1:02:03"]
