"""What figures are drawn from: tables that statistics make of one set of results, each made once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property

import pandas as pd

from harness.figures.most import most_cells
from harness.statistics import divergence
from harness.statistics.divergence import KL, divergences
from harness.statistics.long_context import long_context
from harness.statistics.metric import LOSS, PERPLEXITY, PLAIN, Choice, Metric
from harness.statistics.needles import NEEDLE_ACCURACY, NEEDLE_GAIN, OF_NEEDLES, by_depth, reach
from harness.statistics.paired import paired
from harness.statistics.summary import DEFAULT, Averaging, loss_by_position, summarize
from harness.statistics.token_losses import token_rows


@dataclass(frozen=True)
class Source:
    """Rows of results, how they are averaged, and the line that others are compared with."""

    load: Callable[[str], pd.DataFrame]  # rows of a results table by its name; UserError where there are none
    averaging: Averaging = DEFAULT
    baseline: str = "none"
    metric: Metric = PERPLEXITY
    choice: Choice = PLAIN
    beside: Callable[[str], pd.DataFrame] | None = None  # with cells that are not shown, which those shown stand beside
    shown: Callable[[pd.DataFrame], pd.DataFrame] = lambda table: table  # of a table made from `beside`

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The windows table."""
        return self.load("windows")

    @cached_property
    def measured(self) -> pd.DataFrame:
        """The rows of the metric."""
        if self.metric.of_tokens:
            return self.shown(self.metric.rows(self._kept, self.choice))
        if self.metric is PERPLEXITY and not self.texts.empty:
            return self.texts
        return self.metric.rows(self._table, self.choice)

    @cached_property
    def texts(self) -> pd.DataFrame:
        """The windows of cells that hide no needles: a perplexity of right and wrong answers together says nothing."""
        return self.rows[self.rows["depth"].isna()]

    def by_needles(self) -> "Source":
        """Where every cell hides needles by their gain, as a run ends, in place of perplexity."""
        only = self.metric is PERPLEXITY and self.texts.empty
        return replace(self, metric=NEEDLE_GAIN) if only else self

    def _table(self, name: str) -> pd.DataFrame:
        return self.rows if name == "windows" else self.load(name)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Of `summarize`: one line a cell; of needle accuracy with `reach`."""
        table = summarize(self.measured, self.averaging, self.metric)
        return table.join(reach(self.measured), on="cell_id") if self.metric is NEEDLE_ACCURACY else table

    @cached_property
    def ratios(self) -> pd.DataFrame:
        """Of `paired`: one line a cell beside the baseline."""
        return paired(self.measured, self.baseline, self.averaging, self.metric)

    @cached_property
    def long_context(self) -> pd.DataFrame:
        """Of `long_context`: one line a cell of one pass."""
        load = self._kept
        made = long_context(load("windows"), token_rows(load), load("positions"), self.choice, self.averaging)
        return self.shown(made)

    @cached_property
    def needles(self) -> pd.DataFrame:
        """Of `by_depth`: one line a cell and depth, of the metric if it is one of needles, else of their gain."""
        metric = self.metric if self.metric in OF_NEEDLES else NEEDLE_GAIN
        return by_depth(metric.rows(self._table, self.choice), self.averaging, metric)

    @cached_property
    def _kept(self) -> Callable[[str], pd.DataFrame]:
        return cache(self.beside or self._table)

    @cached_property
    def losses(self) -> pd.DataFrame:
        """Of `loss_by_position`: one line a cell and bin, of as many cells as a figure draws (`left_out`: in words)."""
        metric = self.metric if self.metric.of_positions else LOSS
        rows = self.measured if self.metric.of_positions else self.load("positions")
        kept, left_out = most_cells(rows, metric.total, metric.count)
        return loss_by_position(kept, self.averaging, metric).assign(left_out=left_out)

    @cached_property
    def divergences(self) -> pd.DataFrame:
        """Of `divergences`: one line a cell with a base, and percentiles where tokens are kept."""
        bins = KL.rows(self.load, self.choice)
        return divergences(bins, divergence.token_rows(self.load, bins), self.averaging)
