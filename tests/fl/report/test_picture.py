"""Pictures, judged by the data that their axes hold."""

from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from fl.report import picture
from fl.report.picture import Curve, draw_comparison, draw_history
from tests.fl.records import record

EVERYBODY = (1, 2, 3, 4)
SOME = [record(1), record(2, (1, 2, 4)), record(3, ()), record(4, ()), record(5), record(6, ())]


def labels(figure: Any) -> list[str]:
    return [axes.get_ylabel() for axes in figure.axes]


def drawn(axes: Any, place: int = 0) -> list[tuple[float, float]]:
    """Return the points of one line."""
    line = axes.lines[place]
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def bands(axes: Any) -> list[tuple[float, float]]:
    """Return where rounds are shaded."""
    return [
        (patch.get_x(), patch.get_x() + patch.get_width())
        for patch in axes.patches
        if type(patch).__name__ == "Rectangle"
    ]


def test_the_history_shows_accuracy_loss_and_who_was_missing() -> None:
    figure = draw_history(SOME, "a title")
    assert labels(figure) == ["test accuracy", "test loss", "clients"]
    assert figure.axes[-1].get_xlabel() == "round"
    assert figure.axes[0].get_title(loc="left") == "a title"
    accuracy, loss = (drawn(axes) for axes in figure.axes[:2])
    assert accuracy == [(r.round, r.accuracy) for r in SOME]
    assert loss == [(r.round, r.loss) for r in SOME]
    stacked: list[Any] = list(figure.axes[2].patches[:2])
    there, missing = (patch.get_data() for patch in stacked)
    assert list(there.values) == [4, 3, 0, 0, 4, 0]
    assert list(missing.values) == 6 * [4] and list(missing.baseline) == [4, 3, 0, 0, 4, 0]
    assert list(there.edges) == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    for axes in figure.axes:  # a stretch of abandoned rounds is one band
        assert bands(axes) == [(2.5, 4.5), (5.5, 6.5)]
    (legend,) = figure.legends
    told = [text.get_text() for text in legend.get_texts()]
    assert told == ["clients in the sum", "clients missing", "round abandoned"]


def test_the_history_of_a_run_without_trouble_shows_none() -> None:
    figure = draw_history([record(1), record(2)], "")
    assert labels(figure) == ["test accuracy", "test loss"]
    assert not figure.legends and not bands(figure.axes[0])


def test_rounds_that_were_not_evaluated_leave_no_gap() -> None:
    rounds = [record(number) for number in (1, 2, 3)]
    rounds[1] = record(2, accuracy=None, loss=None)
    figure = draw_history(rounds, "")
    assert [x for x, _ in drawn(figure.axes[0])] == [x for x, _ in drawn(figure.axes[1])] == [1, 3]


def test_a_kind_of_run_has_its_colour_in_whatever_order() -> None:
    rounds = [record(1), record(2)]
    curves = [
        Curve("plain", rounds, "plain"),
        Curve("mphe hybrid", rounds, "mphe hybrid"),
        Curve("mphe hybrid, value_bits 8", rounds, "mphe hybrid"),
        Curve("other", rounds, "other"),
    ]

    def colours(curves: list[Curve]) -> dict[str, str]:
        axes = draw_comparison(curves, "title").axes[0]
        assert axes.get_title(loc="left") == "title"
        return {str(line.get_label()): str(line.get_color()) for line in axes.get_lines()}

    found = colours(curves)
    assert len(set(found.values())) == 4
    assert colours(curves[::-1]) == found
    assert colours(curves[1:2]) == {"mphe hybrid": found["mphe hybrid"]}
    assert colours([curves[0]]) == {"plain": found["plain"]}


def test_without_classes_there_is_no_accuracy() -> None:
    rounds = [record(number, accuracy=None) for number in (1, 2)]
    assert labels(draw_history(rounds, "")) == ["test loss"]
    assert labels(draw_comparison([Curve("a", rounds)])) == ["test loss"]


def test_what_is_no_number_is_a_gap() -> None:
    figure = draw_history([record(1), record(2, loss=float("inf")), record(3, loss=nan)], "")
    assert [isnan(y) for _, y in drawn(figure.axes[1])] == [False, True, True]


def test_a_loss_that_falls_far_gets_a_logarithmic_axis() -> None:
    near, far = ([record(1, loss=2.0), record(2, loss=last)] for last in (0.1, 0.001))
    assert draw_history(near, "").axes[1].get_yscale() == "linear"
    assert draw_history(far, "").axes[1].get_yscale() == "log"


def test_runs_of_a_group_are_drawn_around_their_mean() -> None:
    first = [record(number, accuracy=number / 10, loss=2.0) for number in (1, 2, 3)]
    second = [record(number, accuracy=number / 10 + 1, loss=3.0) for number in (1, 2)]
    runs = [("plain", first), ("mphe hybrid", first), ("plain", second), ("plain", [])]
    curves = [Curve(group, rounds) for group, rounds in runs]
    figure = draw_comparison(curves)
    assert labels(figure) == ["test accuracy", "test loss"]
    one, two, plain, mphe = (drawn(figure.axes[0], place) for place in range(4))
    assert (len(one), len(two)) == (3, 2)  # an unfinished run
    assert np.allclose(plain, [(1, 0.6), (2, 0.7)]) and np.allclose(mphe, drawn(figure.axes[0]))
    assert drawn(figure.axes[1], 2) == [(1, 2.5), (2, 2.5)]
    for axes in figure.axes:
        colours = [line.get_color() for line in axes.lines]
        assert colours[0] == colours[1] == colours[2] != colours[3]
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == ["plain (mean of 2)", "mphe hybrid"]


def test_runs_without_a_round_can_be_drawn() -> None:
    assert labels(draw_comparison([Curve("plain", [])])) == ["test loss"]


def test_the_file_is_a_picture_with_something_in_it(tmp_path: Path) -> None:
    picture.write(draw_history(SOME, "a title"), tmp_path / "history.png")
    pixels = imread(tmp_path / "history.png")
    assert min(pixels.shape[:2]) > 400
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50
    assert [path.name for path in tmp_path.iterdir()] == ["history.png"]


def test_a_full_disk_leaves_no_half_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        written(path, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    (tmp_path / "history.png").touch()
    with pytest.raises(OSError, match="No space left"):
        picture.write(draw_history(SOME, ""), tmp_path / "history.png")
    assert [path.name for path in tmp_path.iterdir()] == ["history.png"]
    assert not (tmp_path / "history.png").read_bytes()
