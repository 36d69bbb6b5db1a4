"""One sheet: perplexity, which hardly sees the far context, beside LongPPL and far copies, which see little else."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.figures import canvas, scales
from harness.figures.canvas import PLAIN, Layout
from harness.figures.folding import below
from harness.figures.most import most_lines
from harness.statistics.lines import describe
from harness.statistics.long_context_text import counted
from harness.statistics.metrics import METRICS

SHEET = ("perplexity", "longppl", "far_copies")
ROWS = ["model", "model_revision", "dataset", "dataset_source", "dataset_fingerprint"]  # a row of panels each
CONTROL = "short windows"


def sheet(table: pd.DataFrame, layout: Layout = PLAIN) -> Figure:
    """A row of three panels a model and data set, lines against length, and what the same tokens cost in short windows.

    table: of `long_context`. Of the layout it takes `hue`.
    """
    hue = layout.hue
    table, note = most_lines(canvas.labelled(table), hue, "perplexity", "perplexity")
    rows = [own for _, own in table.groupby(ROWS, dropna=False, sort=True)]
    labels = [*table[hue].astype(str).unique(), CONTROL]
    figure, axes, width = canvas.empty([0] * len(rows) * len(SHEET), labels, share=False)
    look = canvas.looks(table[hue].astype(str))
    for place, ax in enumerate(axes):
        own, name = rows[place // len(SHEET)], SHEET[place % len(SHEET)]
        _panel(ax, own, name, hue, look)
        what = describe(own, ["model", "dataset"]) if len(rows) > 1 else ""
        ax.set_title(": ".join(filter(None, [what, METRICS[name].title])))
    shared = describe(table, ["model", "dataset", "dataset_source"])
    below(figure, [], width, "ctx", hue, "perplexity", [note])
    canvas.titles(figure, width, shared, *(counted(table, name) for name in SHEET[1:]))
    canvas.legend(figure, axes)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, name: str, hue: str, look: dict[str, canvas.Look]) -> None:
    """One metric; bands where there are intervals."""
    drawn = rows.assign(low=rows[f"{name}_low"], high=rows[f"{name}_high"]).dropna(subset=[name])
    if drawn.empty:
        ax.text(0.5, 0.5, "none of these cells has any", transform=ax.transAxes, ha="center", color="#555555")
        return
    column = f"{name}_short_windows"
    control = drawn.groupby("ctx")[column].first() if column in drawn else pd.Series(dtype=float)
    canvas.lines(ax, drawn, "ctx", hue, look, name)
    ax.plot(control.index, control, color="#888888", linestyle=":", marker=".", linewidth=1.4, label=CONTROL)
    values = pd.concat([drawn[name], control.dropna()])
    scales.length_axis(ax, drawn["ctx"], "ctx")
    scales.value_axis(ax, values, "perplexity")
    scales.frame(ax, values, drawn["low"], drawn["high"])
    canvas.trained_length(ax, drawn, "ctx", hue, name)
