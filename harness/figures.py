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
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from harness import curves
from harness.errors import UserError, unknown

FORMATS = ("svg", "png", "pdf")
LOG_RANGE = 3.0  # largest over smallest value from which the perplexity axis is logarithmic
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)), (0, (9, 2)))
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
    table = summary if hue != "curve" or "curve" in summary else curves.label(summary)
    table = table.astype({x: float}) if x == "ctx" else table
    figure, axes = _canvas(panels := curves.panels(table, x, hue, columns))
    styles = _styles(table[hue].astype(str))
    for ax, (title, rows) in zip(axes, panels, strict=True):
        _lines(ax, rows, x, hue, styles, "perplexity")
        _length_axis(ax, rows[x], x)
        _value_axis(ax, table["perplexity"], "perplexity")
        if x == "ctx":
            _trained_length(ax, rows)
        ax.set_title(title)
    _finish(figure, axes, table, _interval_phrase(summary))
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


def _canvas(panels: list[tuple[str, pd.DataFrame]]) -> tuple[Figure, list[Axes]]:
    """An empty figure with one pair of axes a panel, at most three abreast, sharing scales."""
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.0 * across + 3.6, 3.9 * down + 0.9), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False, sharey=True)
    axes = list(grid.flat)
    for ax in axes[len(panels) :]:
        ax.remove()
    return figure, axes[: len(panels)]


def _styles(labels: pd.Series) -> dict[str, dict[str, Any]]:
    """One colour, marker and dash a label; the unscaled model is black, whatever else is drawn."""
    names = sorted(labels.unique(), key=lambda name: (name != "none", name))
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), itertools.cycle(DASHES), strict=False)
    if "none" not in names:
        next(looks)
    return {
        name: {"color": colour, "marker": marker, "linestyle": dash}
        for name, (colour, marker, dash) in zip(names, looks, strict=False)
    }


def _lines(ax: Axes, rows: pd.DataFrame, x: str, hue: str, styles: dict[str, dict[str, Any]], y: str) -> None:
    """One line with its band for each value of `hue`."""
    for name, line in rows.groupby(rows[hue].astype(str), sort=False):
        line = line.sort_values(x)
        style = styles[str(name)]
        many = len(line) > 16  # as many markers as lengths would hide the line
        ax.plot(
            line[x], line[y], label=str(name), linewidth=1.7, markersize=5.5, markevery=4 if many else 1,
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
    ax.set_xlabel("context length (tokens)" if name == "ctx" else name)


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


def _trained_length(ax: Axes, rows: pd.DataFrame) -> None:
    """A vertical line at each length that a model in the panel was trained at."""
    for length in sorted(rows["original_max_position_embeddings"].dropna().unique()):
        ax.axvline(length, color="#555555", linewidth=1.0, linestyle=(0, (2, 2)), zorder=1)
        ax.annotate(
            f"trained at {curves.tokens(length)}", (length, 1.0), xycoords=("data", "axes fraction"),
            xytext=(3, -3), textcoords="offset points", rotation=90, va="top", ha="left",
            fontsize=9, color="#555555",
        )  # fmt: skip


def _finish(figure: Figure, axes: list[Axes], table: pd.DataFrame, note: str) -> None:
    """One title for what all panels share, one legend to the right, ordered as the lines end."""
    shared = curves.describe(table, ["model", "dataset", "protocol", "protocol_params"])
    with matplotlib.rc_context(STYLE):
        figure.suptitle(f"{shared}\n{note}" if note else shared, fontsize=11.5)
        lines = [line for ax in axes for line in ax.get_lines() if line.get_marker() != "None"]
        handles = {str(line.get_label()): line for line in lines}
        last = {name: np.asarray(line.get_ydata(), float)[-1] for name, line in handles.items()}
        order = sorted(handles, key=lambda name: -last[name])
        figure.legend([handles[name] for name in order], order, loc="outside right upper", handlelength=3.2)


def _interval_phrase(summary: pd.DataFrame) -> str:
    """`token mean, 95 % intervals over 8 documents`, as far as all cells agree."""
    counts = sorted(summary["num_documents"].unique())
    documents = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    weighting = ", ".join(str(name).replace("_", " ") for name in summary["aggregate"].unique())
    if summary["low"].isna().all():
        return f"{weighting} aggregate, {documents} documents, too few for intervals"
    sampled = ", sampled windows" if summary["sampled"].any() else ""
    return (
        f"{weighting} aggregate, {100 * summary['confidence'].iloc[0]:g} % intervals "
        f"over {documents} documents{sampled}"
    )
