"""Figures from tables of numbers: they draw, and compute nothing but where things go.

Legible in grey: every line has its own colour, marker and dash. Legends stand outside the axes, so that they
cover nothing.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from harness import curves
from harness.errors import UserError, unknown

FORMATS = ("svg", "png", "pdf")
LOG_RANGE = 3.0  # largest over smallest value from which the perplexity axis is logarithmic
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)), (0, (9, 2)))
AXES = {"ctx": "context length (tokens)", "position": "position in the window (tokens before)"}
STYLE: Any = {
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


def perplexity(
    summary: pd.DataFrame, x: str = "ctx", hue: str = "curve", columns: Sequence[str] | None = None
) -> Figure:
    """Perplexity against context length (or another column), one line a method, interval bands.

    summary: the table of `statistics.summarize`, one line a cell.
    """
    return _curves(_labelled(summary, hue), x, hue, columns, "perplexity", "perplexity")


def ratio(pairs: pd.DataFrame, x: str = "ctx", hue: str = "curve", columns: Sequence[str] | None = None) -> Figure:
    """Perplexity over that of a baseline on the same documents, paired intervals; below 1 is better.

    pairs: the table of `contrasts.paired`.
    """
    name = f"perplexity / perplexity of {pairs['baseline'].iloc[0]}"
    figure = _curves(_labelled(pairs, hue), x, hue, columns, "ratio", name)
    for ax in figure.axes:
        ax.axhline(1.0, color="black", linewidth=1.0, zorder=1)
    return figure


def position(losses: pd.DataFrame, hue: str = "curve", columns: Sequence[str] | None = None) -> Figure:
    """Loss against the position in the window, one line a method, one panel a context length.

    losses: the table of `statistics.loss_by_position`.
    """
    table = _labelled(losses, hue)
    if columns is None:
        columns = [name for name in [*curves.PANEL, "ctx"] if name != hue and table[name].nunique() > 1]
    return _curves(table, "position", hue, columns, "nll", "loss (nats a token)")


def heatmap(summary: pd.DataFrame, hue: str = "curve", columns: Sequence[str] | None = None) -> Figure:
    """Perplexity as a grid of methods down and context lengths across, each number printed on its shade.

    summary: the table of `statistics.summarize`, one line a cell.
    """
    table = _labelled(summary, hue)
    panels = curves.panels(table, "ctx", hue, columns)
    figure, axes = _canvas(panels, share=False)
    logs = np.log(table["perplexity"].astype(float))
    scale = Normalize(logs.min(), max(logs.max(), logs.min() + 1e-6))
    for ax, (title, rows) in zip(axes, panels, strict=True):
        _grid(ax, rows.pivot(index=hue, columns="ctx", values="perplexity"), scale)
        ax.set_title(title)
    _titles(figure, table, intervals=False)
    return figure


def save(figure: Figure, stem: Path, formats: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write `stem`.svg, `stem`.png, ...; the same figure always gives the same bytes. Returns the paths."""
    for name in formats:
        if name not in FORMATS:
            raise unknown("figure format", name, FORMATS)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{name}") for name in formats]
    stamp = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}
    with matplotlib.rc_context(STYLE):
        for path, name in zip(paths, formats, strict=True):
            figure.savefig(path, dpi=160, metadata=stamp[name])
    return paths


def _labelled(table: pd.DataFrame, hue: str) -> pd.DataFrame:
    if table.empty:
        raise UserError("There is nothing to draw: the table is empty.")
    return table if hue != "curve" or "curve" in table else curves.label(table)


def _curves(table: pd.DataFrame, x: str, hue: str, columns: Sequence[str] | None, y: str, name: str) -> Figure:
    """Lines of `y` against `x` in panels, with everything that stands around them."""
    panels = curves.panels(table, x, hue, columns)
    figure, axes = _canvas(panels)
    styles = _styles(table[hue].astype(str))
    for ax, (title, rows) in zip(axes, panels, strict=True):
        _lines(ax, rows, x, hue, styles, y)
        _length_axis(ax, rows[x], x)
        _value_axis(ax, table[y], name)
        if x in ("ctx", "position"):
            _trained_length(ax, rows, x, at_top=y != "ratio")
        ax.set_title(title)
    _titles(figure, table)
    _legend(figure, axes)
    return figure


def _canvas(panels: list[tuple[str, pd.DataFrame]], share: bool = True) -> tuple[Figure, list[Axes]]:
    """An empty figure with one pair of axes a panel, at most three abreast, sharing the value axis."""
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.0 * across + 3.6, 3.9 * down + 0.9), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False, sharey=share)
    axes = list(grid.flat)
    for ax in axes[len(panels) :]:
        ax.remove()
    return figure, axes[: len(panels)]


def _styles(labels: pd.Series) -> dict[str, dict[str, Any]]:
    """One colour, marker and dash a label; the unscaled model is black, whatever else is drawn."""
    names = sorted(labels.unique(), key=_first_none)
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), itertools.cycle(DASHES), strict=False)
    if "none" not in names:
        next(looks)
    return {
        name: {"color": colour, "marker": marker, "linestyle": dash}
        for name, (colour, marker, dash) in zip(names, looks, strict=False)
    }


def _lines(ax: Axes, rows: pd.DataFrame, x: str, hue: str, styles: dict[str, dict[str, Any]], y: str) -> None:
    """One line with its band for each value of `hue`."""
    for place, (name, line) in enumerate(rows.groupby(rows[hue].astype(str), sort=True)):
        line = line.sort_values(x)
        style = styles[str(name)]
        every = (place % 4, 4) if len(line) > 16 else 1  # a marker a length would hide the line
        ax.plot(
            line[x], line[y], label=str(name), linewidth=1.7, markersize=5.5, markevery=every,
            markeredgecolor="white", markeredgewidth=0.6, **style,
        )  # fmt: skip
        known = line.dropna(subset=["low", "high"])
        ax.fill_between(known[x], known["low"], known["high"], color=style["color"], alpha=0.13, linewidth=0)


def _length_axis(ax: Axes, values: pd.Series, name: str) -> None:
    """Base-2 axis of tokens with ticks at powers of two: 512, 1k, 2k."""
    values = values.astype(float)
    if not (values > 0).all():
        raise UserError(f"{name} must be a positive number to be an axis, got {values.min():g}.")
    ax.set_xscale("log", base=2)
    low, high = np.log2(values.min()), np.log2(values.max())
    step = max(1, int(np.ceil((high - low) / 9)))
    ticks = 2.0 ** np.arange(np.ceil(low - 1e-9), np.floor(high + 1e-9) + 1, step)
    ax.xaxis.set_major_locator(FixedLocator(list(ticks) if len(ticks) > 1 else sorted(set(values))))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: curves.tokens(value)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(AXES.get(name, name))


def _value_axis(ax: Axes, values: pd.Series, name: str) -> None:
    """Logarithmic where the values span more than LOG_RANGE, with plain numbers either way."""
    finite = values[np.isfinite(values)].astype(float)
    if finite.min() > 0 and finite.max() / finite.min() > LOG_RANGE:
        ax.set_yscale("log")
        decades = np.log10(finite.max() / finite.min())
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    if ax.get_subplotspec() is None or ax.get_subplotspec().is_first_col():  # type: ignore[union-attr]
        ax.set_ylabel(name)


def _trained_length(ax: Axes, rows: pd.DataFrame, x: str, at_top: bool) -> None:
    """A vertical line at each length that a model in the panel was trained at, where the axis reaches it."""
    for length in sorted(rows["original_max_position_embeddings"].dropna().unique()):
        if not rows[x].min() <= length <= rows[x].max():
            continue
        ax.axvline(length, color="#555555", linewidth=1.0, linestyle=(0, (2, 2)), zorder=1)
        ax.annotate(
            f"trained at {curves.tokens(length)}", (length, 1.0 if at_top else 0.0),
            xycoords=("data", "axes fraction"), xytext=(3, -3 if at_top else 3), textcoords="offset points",
            rotation=90, va="top" if at_top else "bottom", ha="left", fontsize=9, color="#555555",
        )  # fmt: skip


def _grid(ax: Axes, wide: pd.DataFrame, scale: Normalize) -> None:
    """One grid of shaded numbers; dark is high, so that it reads in grey."""
    order = sorted(wide.index, key=_first_none)
    values = wide.loc[order].astype(float)
    shades = matplotlib.colormaps["cividis_r"]
    ax.imshow(np.log(values), cmap=shades, norm=scale, aspect="auto")
    ax.grid(False)
    ax.set_xticks(range(values.shape[1]), [curves.tokens(float(length)) for length in values.columns.to_numpy()])
    ax.set_yticks(range(values.shape[0]), [str(name) for name in order])
    ax.set_xlabel("context length (tokens)")
    for (row, column), value in np.ndenumerate(values.to_numpy()):
        dark = np.isfinite(value) and scale(np.log(value)) > 0.5
        ax.text(
            column, row, curves.number(value), ha="center", va="center", fontsize=9.5,
            color="white" if dark else "black",
        )  # fmt: skip


def _titles(figure: Figure, table: pd.DataFrame, intervals: bool = True) -> None:
    """What all panels share: model, data, protocol; below it how the numbers were formed."""
    shared = curves.describe(table, ["model", "dataset", "protocol", "protocol_params"])
    with matplotlib.rc_context(STYLE):
        figure.suptitle("\n".join(part for part in (shared, _how(table, intervals)) if part), fontsize=11.5)


def _legend(figure: Figure, axes: list[Axes]) -> None:
    """One legend to the right of all axes, in the order in which the lines end."""
    lines = [line for ax in axes for line in ax.get_lines() if line.get_marker() != "None"]
    handles = {str(line.get_label()): line for line in lines}
    last = {name: np.asarray(line.get_ydata(), float)[-1] for name, line in handles.items()}
    order = sorted(handles, key=lambda name: -last[name])
    with matplotlib.rc_context(STYLE):
        figure.legend([handles[name] for name in order], order, loc="outside right upper", handlelength=3.2)


def _first_none(name: object) -> tuple[bool, str]:
    """Sorts the unscaled model before all others."""
    return name != "none", str(name)


def _how(table: pd.DataFrame, intervals: bool) -> str:
    """`token aggregate, 95 % intervals over 8 documents`, as far as all cells agree."""
    counts = sorted(table["num_documents"].unique())
    documents = f"{counts[0]} documents" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} documents"
    weighting = ", ".join(str(name).replace("_", " ") for name in table["aggregate"].unique())
    sampled = ", sampled windows" if table["sampled"].any() else ""
    if not intervals:
        return f"{weighting} aggregate, {documents}{sampled}"
    if table["low"].isna().all():
        return f"{weighting} aggregate, {documents}, too few for intervals{sampled}"
    return f"{weighting} aggregate, {100 * table['confidence'].iloc[0]:g} % intervals over {documents}{sampled}"
