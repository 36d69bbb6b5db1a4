"""The needle heat map: length across and depth down, one panel a method."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from harness.figures import canvas
from harness.figures.canvas import PLAIN, SHARED, Layout
from harness.figures.folding import below
from harness.figures.most import most_panels
from harness.statistics.lines import describe, panels, tokens
from harness.statistics.metrics import metric_of
from harness.statistics.text import averaging_phrase


def needles(table: pd.DataFrame, layout: Layout = PLAIN) -> Figure:
    """Gain or accuracy by length and depth, a panel for every line, each number on its shade.

    table: of `harness.statistics.needles.by_depth`. Of the layout it takes `columns`.
    """
    table = canvas.labelled(table)
    metric = metric_of(table)
    parts = panels(table, "ctx", "depth", layout.columns)
    parts = sorted(parts, key=lambda part: canvas.first_none(part[1]["curve"].iloc[0]))
    parts, fewer = most_panels(parts)
    figure, axes, width = canvas.empty(parts, share=False)
    values = table[metric.name]
    scale = Normalize(0, 1) if values.between(0, 1).all() and metric.count == "needles" else _around_zero(values)
    for ax, (title, rows) in zip(axes, parts, strict=True):
        _grid(ax, rows.pivot(index="depth", columns="ctx", values=metric.name), scale)
        canvas.heading(ax, title or str(rows["curve"].iloc[0]), width, len(parts))
    below(figure, [], width, "ctx", "depth", metric.name, [fewer])
    canvas.titles(figure, width, metric.title, describe(table, SHARED), _phrase(table))
    return figure


def _around_zero(values: pd.Series) -> Normalize:
    """Zero, no gain, in the middle of the shades where there are losses; else at their light end."""
    top = max(float(values.max()), 1e-6)
    return Normalize(min(0.0, float(values.min())), top)


def _phrase(table: pd.DataFrame) -> str:
    return averaging_phrase(table, intervals=False).replace(" repeats", " repeats of every depth")


def _grid(ax: Axes, wide: pd.DataFrame, scale: Normalize) -> None:
    """One grid of shaded numbers; dark is high, so that it reads in grey."""
    values = wide.sort_index().astype(float)
    ax.imshow(values, cmap=matplotlib.colormaps["cividis_r"], norm=scale, aspect="auto")
    ax.grid(False)
    ax.set_xticks(range(values.shape[1]), [tokens(float(length)) for length in values.columns.to_numpy()])
    ax.set_yticks(range(values.shape[0]), [f"{depth:g}" for depth in values.index])
    ax.set_xlabel("context length (tokens)")
    ax.set_ylabel("depth (0: beginning)")
    for (row, column), value in np.ndenumerate(values.to_numpy()):
        if np.isfinite(value):
            colour = "white" if scale(value) > 0.5 else "black"
            ax.text(column, row, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", fontsize=9, color=colour)
