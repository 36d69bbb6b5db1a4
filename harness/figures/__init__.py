"""From tables to figures: they draw, and compute nothing.

A type of figure is a function that draws a table, and its entry in FIGURES; plot and report show what stands there.
"""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from harness.figures.canvas import PLAIN, Layout
from harness.figures.curves import perplexity, position, ratio
from harness.figures.heatmap import heatmap
from harness.figures.long_context import sheet
from harness.figures.needles import needles
from harness.figures.source import Source


class FigureType(NamedTuple):
    """One type of figure: what it is called, the table it shows, and what draws that table."""

    name: str  # in commands and of its files
    caption: str  # in pages; of {metric}, and {baseline}, the line that ratios divide by
    table: Callable[[Source], pd.DataFrame]
    draw: Callable[[pd.DataFrame, Layout], Figure]

    def figure(self, source: Source, layout: Layout = PLAIN) -> Figure:
        """The figure of these results. Raises UserError where they do not allow it."""
        return self.draw(self.table(source), layout)


FIGURES: dict[str, FigureType] = {
    entry.name: entry
    for entry in (
        FigureType("perplexity", "{metric} against context length", lambda source: source.summary, perplexity),
        FigureType("ratio", "{metric} over that of {baseline}", lambda source: source.ratios, ratio),
        FigureType("heatmap", "{metric} by method and length", lambda source: source.summary, heatmap),
        FigureType(
            "long_context", "perplexity beside LongPPL and far copies", lambda source: source.long_context, sheet
        ),
        FigureType("needles", "needles by length and depth", lambda source: source.needles, needles),
        FigureType("position", "loss (or KL to a base) against position", lambda source: source.losses, position),
    )
}
