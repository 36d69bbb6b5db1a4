"""The figure of a paper's numbers."""

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import canvas, scales
from harness.statistics.lines import describe


def paper(rows: pd.DataFrame) -> Figure:
    """A paper's numbers alone, one panel a table and data set, framed so that broken-down lines leave at the top.

    rows: the table of `published.select`. Hollow triangles stand where a paper printed only a bound.
    """
    places = ["table", "dataset", "documents"]
    varying = [name for name in places if rows[name].nunique() > 1]
    panels = list(rows.groupby(varying, sort=True)) if varying else [((), rows)]
    figure, axes, width = canvas.empty(panels, list(rows["curve"].unique()), share=False)
    look = canvas.looks(rows["curve"])
    for ax, (_, panel) in zip(axes, panels, strict=True):
        canvas.printed_lines(ax, panel, look)
        scales.length_axis(ax, panel["ctx"], "ctx")
        framed = panel.loc[panel["value"] <= _frame(panel), "value"]
        scales.value_axis(ax, framed, "perplexity")
        ax.set_ylim(framed.min() / 1.05, framed.max() * 1.05)
        canvas.printed_bounds(ax, panel, look)
        canvas.heading(ax, describe(panel, varying), width, len(panels))
    canvas.legend(figure, axes, by_name=len(axes) > 1)  # lines end in another order in every panel
    shared = describe(rows, [name for name in places if name not in varying])
    canvas.titles(figure, width, _source(rows), shared, _measure(rows))
    return figure


def _frame(rows: pd.DataFrame) -> float:
    """The highest perplexity to show: a quarter above the highest that a line starts with."""
    values = rows[rows["qualifier"] == "eq"].sort_values("ctx")
    return 1.25 * float(values.groupby("curve_id")["value"].first().max())


def _source(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return f"{first['paper']} (arXiv:{first['arxiv_id']}), as printed" if first["arxiv_id"] else f"{first['paper']}"


def _measure(rows: pd.DataFrame) -> str:
    measure = describe(rows, ["protocol_class"]).replace("_", " ")
    bounds = "triangles: printed only as above some value" if (rows["qualifier"] == "gt").any() else ""
    return "; ".join(part for part in (measure, bounds) if part)
