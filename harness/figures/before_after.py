"""The figure of a comparison: how far each cell moved."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.figures import canvas
from harness.statistics.before_after import Verdict
from harness.statistics.lines import describe, tokens
from harness.statistics.metric import PERPLEXITY, Metric

LOOKS: dict[Verdict, tuple[str, str]] = {  # marker and colour
    "same": ("o", "#999999"),
    "better": ("v", "#0072B2"),
    "worse": ("^", "#D55E00"),
    "different": ("X", "#000000"),
}


def changes(cells: pd.DataFrame, tolerance: float, metric: Metric = PERPLEXITY) -> Figure:
    """Change of a metric from before to after, in per cent unless it is compared by difference, one row a cell.

    The shaded band is the tolerance.

    cells: the cells of a `before_after.Comparison`.
    """
    figure, (ax,), width = canvas.empty([0])
    figure.set_figheight(1.5 + 0.3 * len(cells))
    places = np.arange(len(cells))[::-1]
    in_percent = metric.scale != "difference"
    unit = 100 if in_percent else 1
    change = unit * (cells[["ratio", "low", "high"]] - metric.neutral)
    known = cells["low"].notna().to_numpy()
    ax.hlines(places[known], change["low"][known], change["high"][known], color="#555555", linewidth=1.4)
    for verdict, (marker, colour) in LOOKS.items():
        mine = (cells["verdict"] == verdict).to_numpy()
        ax.plot(change["ratio"][mine], places[mine], marker=marker, color=colour, linestyle="none", label=verdict)
    ax.axvline(0.0, color="black", linewidth=1.0, zorder=1)
    ax.axvspan(-unit * tolerance, unit * tolerance, color="#dddddd", zorder=0)
    ax.set_yticks(places, [f"{cell['curve']}, {tokens(cell['ctx'])}" for cell in cells.to_dict("records")])
    ax.set_xlabel(f"change of {metric.title}" + (" (%)" if in_percent else ""))
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.6g}" if value else "0"))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.9 / figure.get_figheight()), ncols=4, frameon=False)
    shared = describe(cells, ["model", "dataset", "dataset_source", "protocol"])
    canvas.titles(figure, width, shared, f"tolerance {unit * tolerance:g}" + (" %" if in_percent else ""))
    return figure
