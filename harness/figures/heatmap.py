"""The heatmap: perplexity by method and length, in numbers on shades."""

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from harness.figures import canvas
from harness.figures.canvas import PLAIN, SHARED, Layout
from harness.figures.folding import below, fold
from harness.figures.most import most_of, most_panels
from harness.statistics.lines import describe, panels, tokens
from harness.statistics.metrics import metric_of
from harness.statistics.text import averaging_phrase, number

Shade = Callable[..., Any]  # a value, or an array of them, as it is shaded


def heatmap(summary: pd.DataFrame, layout: Layout = PLAIN) -> Figure:
    """Perplexity (or its like) as a grid of methods down and context lengths across, each number printed on its shade.

    summary: the table of `summarize`, one line a cell. Of the layout it takes `hue` and `columns`.
    """
    metric = metric_of(summary)
    table, note = most_of(canvas.labelled(summary), layout.hue, metric)
    parts, points = fold(panels(table, "ctx", layout.hue, layout.columns), ["ctx", layout.hue])
    parts, fewer = most_panels(parts)
    figure, axes, width = canvas.empty(parts, share=False)
    shade: Shade = np.asarray if metric.scale == "difference" else np.log
    shades = shade(table[metric.name].astype(float))
    scale = Normalize(shades.min(), max(shades.max(), shades.min() + 1e-6))
    for ax, (title, rows) in zip(axes, parts, strict=True):
        _grid(ax, rows.pivot(index=layout.hue, columns="ctx", values=metric.name), scale, shade)
        canvas.heading(ax, title, 0.85 * width, len(parts))  # names of methods take their share
    below(figure, points, width, "ctx", layout.hue, metric.name, [note, fewer])
    canvas.titles(figure, width, describe(table, SHARED), averaging_phrase(table, intervals=False))
    return figure


def _grid(ax: Axes, wide: pd.DataFrame, scale: Normalize, shade: Shade) -> None:
    """One grid of shaded numbers; dark is high, so that it reads in grey."""
    order = sorted(wide.index, key=canvas.first_none)
    values = wide.loc[order].astype(float)
    ax.imshow(shade(values), cmap=matplotlib.colormaps["cividis_r"], norm=scale, aspect="auto")
    ax.grid(False)
    ax.set_xticks(range(values.shape[1]), [tokens(float(length)) for length in values.columns.to_numpy()])
    ax.set_yticks(range(values.shape[0]), [str(name) for name in order])
    ax.set_xlabel("context length (tokens)")
    for (row, column), value in np.ndenumerate(values.to_numpy()):
        dark = np.isfinite(value) and scale(shade(value)) > 0.5
        ax.text(
            column, row, number(value), ha="center", va="center", fontsize=9.5,
            color="white" if dark else "black",
        )  # fmt: skip
