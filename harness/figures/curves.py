"""Curves: perplexity, its ratio to a baseline and loss, against context length or position."""

from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import canvas, scales
from harness.figures.canvas import PLAIN, SHARED, Layout
from harness.figures.folding import below, fold
from harness.figures.most import most_lines, most_of, most_panels
from harness.statistics.lines import PANEL, describe, panels
from harness.statistics.metric import LOSS
from harness.statistics.metrics import METRICS, metric_of
from harness.statistics.text import averaging_phrase


def perplexity(summary: pd.DataFrame, layout: Layout = PLAIN) -> Figure:
    """Perplexity (or another metric) against context length (or another column), one line a method, interval bands.

    summary: the table of `summarize`, one line a cell. Published rows of the layout lie under the measured lines.
    """
    metric = metric_of(summary)
    table, note = most_of(canvas.labelled(summary), layout.hue, metric)
    figure = _curves(table, layout, metric.name, metric.title, note)
    if metric.even is not None:
        for ax in figure.axes:
            ax.axhline(metric.even, color="black", linewidth=1.0, zorder=1)
    return figure


def ratio(pairs: pd.DataFrame, layout: Layout = PLAIN) -> Figure:
    """A metric over that of a baseline (or less it) on the same documents, paired intervals.

    pairs: the table of `paired`.
    """
    metric = metric_of(pairs)
    sign = "-" if metric.scale == "difference" else "/"
    name = f"{metric.title} {sign} {metric.title} of {pairs['baseline'].iloc[0]}"
    table, note = most_lines(canvas.labelled(pairs), layout.hue, "ratio", name, higher=metric.higher_is_better)
    figure = _curves(table, replace(layout, under=None), "ratio", name, note)
    for ax in figure.axes:
        ax.axhline(metric.neutral, color="black", linewidth=1.0, zorder=1)
    return figure


def position(losses: pd.DataFrame, layout: Layout = PLAIN) -> Figure:
    """Loss (or KL) against the position in the window, one line a method, one panel a context length.

    losses: the table of `loss_by_position`. Of the layout it takes `hue` and `columns`.
    """
    table, hue, columns = canvas.labelled(losses), layout.hue, layout.columns
    if columns is None:
        columns = [name for name in [*PANEL, "ctx", "curve"] if name != hue and table[name].nunique() > 1]
    metric = LOSS if "nll" in table else next(METRICS[name] for name in METRICS if name in table)
    note = str(table["left_out"].iloc[0]) if "left_out" in table else ""
    return _curves(table, Layout("position", hue, columns), metric.name, metric.title, note)


def _curves(table: pd.DataFrame, layout: Layout, y: str, name: str, note: str) -> Figure:
    """Lines of `y` against `x` in panels, with everything that stands around them; `note`: of what is left out."""
    x, hue, under = layout.x, layout.hue, layout.under
    parts, points = fold(panels(table, x, hue, layout.columns), [x])
    parts, fewer = most_panels(parts)
    shown = pd.concat([rows for _, rows in parts])
    labels = [*shown[hue].astype(str).unique(), *([] if under is None else under["curve"].unique())]
    figure, axes, width = canvas.empty(parts, labels)
    look = canvas.looks(table[hue].astype(str))
    for ax, (title, rows) in zip(axes, parts, strict=True):
        if under is not None:
            canvas.printed_lines(ax, under, canvas.looks(under["curve"]), quiet=True)
        canvas.lines(ax, rows, x, hue, look, y)
        scales.length_axis(ax, rows[x] if under is None else pd.concat([rows[x], under["ctx"]]), x)
        values = shown[y] if under is None else pd.concat([shown[y], under.loc[under["qualifier"] == "eq", "value"]])
        scales.value_axis(ax, values, name, log=y != "nll")  # a loss is a logarithm already
        scales.frame(ax, values, shown["low"], shown["high"])
        if x in ("ctx", "position"):
            canvas.trained_length(ax, rows, x, hue, y)
        canvas.heading(ax, title, width, len(parts))
    below(figure, points, width, x, hue, y, [note, fewer])
    canvas.titles(figure, width, describe(table, SHARED), averaging_phrase(table))
    canvas.legend(figure, axes)
    return figure
