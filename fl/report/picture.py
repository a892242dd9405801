"""Draws accuracy and loss against the rounds: of one run with its dropouts, or of several."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import isfinite, nan
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, Color Universal Design: told apart with any colour vision.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
OWN_COLOURS = {"plain": BLUE, "mphe hybrid": VERMILLION, "mphe direct": GREEN}
"""Of each kind of run: the same in every picture."""
COLOURS = ("#CC79A7", ORANGE, "#56B4E9", "#000000")
"""Of further groups of a kind."""
STYLES = ("-", "--", ":", "-.")
GREY = "#5f6b73"
DPI = 130
FEW = 25
"""Rounds up to which every point is marked."""
WIDE_RANGE = 50.0
"""Largest by smallest loss from which its axis is logarithmic."""


class DrawnRound(Protocol):
    """What is drawn of one round; None is left out, and NaN a gap."""

    @property
    def round(self) -> int:
        """Its number, from 1."""

    @property
    def accuracy(self) -> float | None:
        """On the test set after the round."""

    @property
    def loss(self) -> float | None:
        """On the test set after the round."""

    @property
    def contributors(self) -> tuple[int, ...]:
        """Who is in the sum."""

    @property
    def dropped(self) -> tuple[int, ...]:
        """Who is not."""

    @property
    def abandoned(self) -> str | None:
        """Why there is no sum, or None."""


@dataclass(frozen=True)
class Curve:
    """One run of several: runs of the same group share a colour and one entry of the legend.

    `kind` says how updates are summed up, and has a colour of its own.
    """

    group: str
    rounds: Sequence[DrawnRound]
    kind: str = ""


def draw_history(rounds: Sequence[DrawnRound], title: str) -> "Figure":
    """Return the picture of one run; abandoned rounds are shaded, missing clients stacked."""
    accurate = _any(round.accuracy for round in rounds)
    absent = any(round.dropped for round in rounds)
    heights = [3.0] * accurate + [3.0] + [1.1] * absent
    figure = _figure(7.5, 1.2 + 0.62 * sum(heights))
    panels = list(
        figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    )
    numbers = [round.round for round in rounds]
    if accurate:
        _plot(panels[0], _series(rounds, "accuracy"), color=BLUE)
        panels[0].set_ylabel("test accuracy")
    losses = [round.loss for round in rounds]
    loss_panel = panels[1] if accurate else panels[0]
    _plot(loss_panel, _series(rounds, "loss"), color=BLUE)
    _label_loss(loss_panel, losses)
    if absent:
        _draw_attendance(panels[-1], rounds)
    for panel in panels:
        _shade_abandoned(panel, rounds)
    _finish(panels, numbers)
    panels[0].set_title(title, loc="left", fontsize=10, color=GREY)
    handles, labels = panels[-1].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_comparison(curves: Sequence[Curve], title: str = "") -> "Figure":
    """Return the picture of several runs, accuracy above loss.

    The runs of a group are thin lines around their mean.
    """
    rounds = [round for curve in curves for round in curve.rounds]
    accurate = _any(round.accuracy for round in rounds)
    figure = _figure(7.5, 6.4 if accurate else 3.8)
    panels = list(figure.subplots(1 + accurate, 1, sharex=True, squeeze=False)[:, 0])
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        if curve.rounds:
            groups.setdefault(curve.group, []).append(curve)
    looks = _looks({name: members[0].kind for name, members in groups.items()})
    for name, members in groups.items():
        look = looks[name]
        if accurate:
            _plot_group(
                panels[0], [_series(curve.rounds, "accuracy") for curve in members], name, **look
            )
        _plot_group(panels[-1], [_series(curve.rounds, "loss") for curve in members], name, **look)
    if accurate:
        panels[0].set_ylabel("test accuracy")
    _label_loss(panels[-1], [round.loss for round in rounds])
    _finish(panels, [round.round for round in rounds])
    panels[0].set_title(title, loc="left", fontsize=10, color=GREY)
    handles, labels = panels[-1].get_legend_handles_labels()
    if handles:
        columns = 2 if max(map(len, labels)) < 45 else 1
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _looks(kinds: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return colour and style of each group, the same in whatever order runs are named.

    The first group of a kind, by name, has the colour of that kind.
    """
    looks: dict[str, dict[str, str]] = {}
    own, further = dict(OWN_COLOURS), 0
    for name, kind in sorted(kinds.items()):
        if kind in own:
            looks[name] = {"color": own.pop(kind), "linestyle": STYLES[0]}
            continue
        style = STYLES[further // len(COLOURS) % len(STYLES)]
        looks[name] = {"color": COLOURS[further % len(COLOURS)], "linestyle": style}
        further += 1
    return looks


def _series(rounds: Sequence[DrawnRound], name: str) -> dict[int, float]:
    """Return the figure of each round that has one: not every round need be evaluated."""
    found = {round.round: getattr(round, name) for round in rounds}
    return {number: value for number, value in found.items() if value is not None}


def _plot_group(axes: "Axes", members: Sequence[dict[int, float]], name: str, **look: Any) -> None:
    """Draw one run, or several thinly around their mean, over the rounds that all of them have."""
    if len(members) > 1:
        for one in members:
            _plot(axes, one, **look, marker="", alpha=0.35, linewidth=1.0)
        common = sorted(set.intersection(*(set(one) for one in members)))
        means = {number: mean(one[number] for one in members) for number in common}
        label = f"{name} (mean of {len(members)})"
        _plot(axes, means, **look, label=label, marker="", linewidth=2.0)
    else:
        (one,) = members
        _plot(axes, one, **look, label=name)


def write(figure: "Figure", path: Path) -> None:
    """Write a PNG, whole or not at all; OSError when that fails."""
    data = BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    # Under another name first: a full disk must not leave half a picture.
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(data.getvalue())
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _figure(width: float, height: float) -> "Figure":
    # Takes half a second, and only those who draw should wait for it.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _any(values: Iterable[float | None]) -> bool:
    return any(value is not None and isfinite(value) for value in values)


def _plot(axes: "Axes", series: Mapping[int, float], **look: Any) -> None:
    drawn = [value if isfinite(value) else nan for value in series.values()]
    marker = "o" if len(series) <= FEW else ""
    look = {"linewidth": 1.5, "markersize": 3.5, "marker": marker, **look}
    axes.plot(list(series), drawn, **look)


def _label_loss(axes: "Axes", losses: Sequence[float | None]) -> None:
    known = [loss for loss in losses if loss is not None and isfinite(loss)]
    wide = bool(known) and 0 < min(known) < max(known) / WIDE_RANGE
    axes.set_yscale("log" if wide else "linear")
    axes.set_ylabel("test loss")


def _draw_attendance(axes: "Axes", rounds: Sequence[DrawnRound]) -> None:
    """Stack the clients in the sum and those who are not."""
    edges = [round.round - 0.5 for round in rounds] + [rounds[-1].round + 0.5]
    there = [len(round.contributors) for round in rounds]
    all_of_them = [len(round.contributors) + len(round.dropped) for round in rounds]
    axes.stairs(there, edges, fill=True, color=BLUE, alpha=0.75, label="clients in the sum")
    axes.stairs(
        all_of_them, edges, baseline=there, fill=True, color=ORANGE, label="clients missing"
    )
    axes.set_ylim(0, 1.08 * max(all_of_them))
    axes.set_yticks([0, max(all_of_them)])
    axes.set_ylabel("clients")


def _shade_abandoned(axes: "Axes", rounds: Sequence[DrawnRound]) -> None:
    """Shade the rounds without a sum, a stretch of them at once."""
    stretches: list[list[int]] = []
    for number in (round.round for round in rounds if round.abandoned is not None):
        if stretches and stretches[-1][1] == number - 1:
            stretches[-1][1] = number
        else:
            stretches.append([number, number])
    look: dict[str, Any] = {"facecolor": VERMILLION, "alpha": 0.35, "linewidth": 0, "zorder": 0}
    for index, (first, last) in enumerate(stretches):
        label = "_" if index else "round abandoned"
        axes.axvspan(first - 0.5, last + 0.5, label=label, **look)


def _finish(panels: Sequence["Axes"], numbers: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    for panel in panels:
        panel.grid(axis="y", alpha=0.3)
        panel.set_axisbelow(True)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    panels[-1].set_xlabel("round")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if numbers:
        panels[-1].set_xlim(min(numbers) - 0.5, max(numbers) + 0.5)
