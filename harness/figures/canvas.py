"""What all figures share: canvas, looks, lines, legend, titles. Legible in grey, and nothing covers anything."""

import itertools
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.errors import UserError
from harness.statistics.lines import label, tokens

LABEL_ROOM, LABEL_WIDTH = 0.36, 0.2  # of a label that stands upright: share of the axes' height; inches
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
Dash = str | tuple[float, tuple[float, ...]]  # as matplotlib takes it: a name, or offset and lengths in points
DASHES: tuple[Dash, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)), (0, (9, 2)))
STYLE: Any = {  # matplotlib's stubs allow the keys of one version only
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "harness",
}
ABREAST = 3  # panels in a row, at most
CHARACTER = 0.083  # inches a character of text takes, about
SHARED = [
    "model",
    "dataset",
    "dataset_source",
    "dataset_fingerprint",
    "protocol",
    "protocol_params",
    "base",
]  # what a title names


class Look(TypedDict):
    """How the line of one label is drawn."""

    color: str
    marker: str
    linestyle: Dash


@dataclass(frozen=True)
class Layout:
    """Which columns of a table make the axis, the lines and the panels of a figure, and what lies under the lines."""

    x: str = "ctx"
    hue: str = "curve"
    columns: Sequence[str] | None = None  # None: model, data set, protocol, ... where they vary
    under: pd.DataFrame | None = None  # published rows (`published.overlay.comparable`), drawn thin and grey


PLAIN = Layout()


class Canvas(NamedTuple):
    """An empty figure: its axes, and the width in inches that they have beside the legend."""

    figure: Figure
    axes: list[Axes]
    width: float


def empty(panels: Sequence[object], labels: Sequence[str] = (), share: bool = True) -> Canvas:
    """An empty figure with one pair of axes a panel, at most ABREAST in a row, with room for a legend of `labels`."""
    across = min(ABREAST, len(panels))
    down = -(-len(panels) // across)
    beside = 0.9 + CHARACTER * max(map(len, labels)) if labels else 0.0
    width = (5.8 if across == 1 else 4.3 * across) + beside
    height = max(3.9 * down + 0.9, 0.24 * len(labels) + 0.4)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False, sharey=share)
    axes = list(grid.flat)
    for ax in axes[len(panels) :]:
        ax.remove()
    return Canvas(figure, axes[: len(panels)], width - beside)


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the names of its lines. Raises UserError where it is empty."""
    if table.empty:
        raise UserError("There is nothing to draw: the table is empty.")
    return table if "curve" in table else label(table)


def looks(labels: pd.Series) -> dict[str, Look]:
    """One colour, marker and dash a label; the unscaled model is black, whatever else is drawn."""
    names = sorted(labels.unique(), key=first_none)
    cycles = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), itertools.cycle(DASHES), strict=False)
    if "none" not in names:
        next(cycles)
    return {
        name: {"color": colour, "marker": marker, "linestyle": dash}
        for name, (colour, marker, dash) in zip(names, cycles, strict=False)
    }


def first_none(name: object) -> tuple[bool, str]:
    """Sorts the unscaled model before all others."""
    return name != "none", str(name)


def lines(ax: Axes, rows: pd.DataFrame, x: str, hue: str, look: dict[str, Look], y: str) -> None:
    """One line with its band, where there is one, for each value of `hue`."""
    for place, (name, line) in enumerate(rows.groupby(rows[hue].astype(str), sort=True)):
        line = line.sort_values(x)
        every = (place % 4, 4) if len(line) > 16 else 1  # a marker a length would hide the line
        ax.plot(
            line[x], line[y], label=str(name), linewidth=1.7, markersize=5.5, markevery=every,
            markeredgecolor="white", markeredgewidth=0.6, **look[str(name)],
        )  # fmt: skip
        if "low" in line:
            known = line.dropna(subset=["low", "high"])
            colour = look[str(name)]["color"]
            ax.fill_between(known[x], known["low"], known["high"], color=colour, alpha=0.13, linewidth=0)


def printed_lines(ax: Axes, rows: pd.DataFrame, look: dict[str, Look], quiet: bool = False) -> None:
    """Lines through published values. `quiet` draws thin grey ones to lie under measured lines."""
    for name, line in rows[rows["qualifier"] == "eq"].groupby("curve", sort=True):
        line = line.sort_values("ctx")
        every = 4 if len(line) > 16 else 1
        (drawn,) = ax.plot(
            line["ctx"], line["value"], label=str(name), linewidth=1.0 if quiet else 1.5, markersize=4.5,
            markevery=every, **look[str(name)],
        )  # fmt: skip
        if quiet:
            drawn.set(color="#888888", markerfacecolor="white")


def printed_bounds(ax: Axes, rows: pd.DataFrame, look: dict[str, Look]) -> None:
    """Hollow triangles where only a lower bound was printed, at the upper edge where the bound lies above it."""
    top = ax.get_ylim()[1]
    for name, line in rows[rows["qualifier"] == "gt"].groupby("curve", sort=True):
        ax.plot(
            line["ctx"], line["value"].clip(upper=top), linestyle="none", marker="^", markersize=7, label="_bound",
            markerfacecolor="none", markeredgecolor=look[str(name)]["color"], clip_on=False,
        )  # fmt: skip


def trained_length(ax: Axes, rows: pd.DataFrame, x: str, hue: str, y: str) -> None:
    """A vertical line at each length that a model in the panel was trained at, where the axis reaches it."""
    for length in sorted(rows["original_max_position_embeddings"].dropna().unique()):
        if not rows[x].min() <= length <= rows[x].max():
            continue
        ax.axvline(length, color="#555555", linewidth=1.0, linestyle=(0, (2, 2)), zorder=1)
        passing = [_heights(ax, line[[x, y]].dropna().sort_values(x), length) for _, line in rows.groupby(hue)]
        ax.annotate(
            f"trained at {tokens(length)}", (length, _clear_below(np.concatenate(passing))),
            xycoords=("data", "axes fraction"), xytext=(3, -6), textcoords="offset points",
            rotation=90, va="top", ha="left", fontsize=9, color="#555555",
        )  # fmt: skip


def _heights(ax: Axes, line: pd.DataFrame, at: float) -> NDArray[np.float64]:
    """Where a line passes a label that stands right of `at`: heights (0 to 2,), in fractions of the axes.

    line: two columns, sorted x and y. The heights are those at the label's left and right edge, as far as the line
    passes them within the axes.
    """
    across, up = ax.transData.transform(line).T
    left = ax.transData.transform((at, ax.get_ylim()[0]))[0]
    heights = np.interp(left + np.array([0.0, LABEL_WIDTH * ax.figure.dpi]), across, up, np.nan, np.nan)
    found = ax.transAxes.inverted().transform(np.column_stack([np.zeros(2), heights]))[:, 1]
    return found[(found > 0) & (found < 1)]


def _clear_below(heights: NDArray[np.float64]) -> float:
    """The highest place with room for a label between lines that pass at `heights`; else the roomiest."""
    gaps = list(itertools.pairwise(sorted([0.0, *heights, 1.0], reverse=True)))
    return next((top for top, low in gaps if top - low >= LABEL_ROOM), max(gaps, key=lambda gap: gap[0] - gap[1])[0])


def heading(ax: Axes, title: str, width: float, panels: int) -> None:
    """The title of one of so many panels, wrapped to its share of the `width` in inches of all axes."""
    room = int(width / min(ABREAST, panels) / CHARACTER / 1.15)
    ax.set_title("\n".join(textwrap.wrap(title, room)))


def titles(figure: Figure, width: float, *parts: str) -> None:
    """What all panels share, one part a line, left aligned and wrapped to the `width` in inches of the axes."""
    folded = [line for part in parts if part for line in textwrap.wrap(part, int(width / CHARACTER / 1.05))]
    with matplotlib.rc_context(STYLE):
        figure.suptitle("\n".join(folded), fontsize=11.5, x=0.01, ha="left")


def legend(figure: Figure, axes: list[Axes], by_name: bool = False) -> None:
    """One legend to the right of all axes, in the order in which the lines end (of the last panel), or `by_name`."""
    drawn = [line for ax in axes for line in ax.get_lines() if line.get_marker() != "None"]
    handles = {str(line.get_label()): line for line in drawn if not str(line.get_label()).startswith("_")}
    last = {name: _last(np.asarray(line.get_ydata(), float)) for name, line in handles.items()}
    order = sorted(handles, key=_natural) if by_name else sorted(handles, key=lambda name: -last[name])
    with matplotlib.rc_context(STYLE):
        figure.legend([handles[name] for name in order], order, loc="outside right upper", handlelength=3.2)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts 7B before 13B."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _last(values: NDArray[np.float64]) -> float:
    return float(values[-1]) if len(values) else np.inf
