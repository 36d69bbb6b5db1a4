"""What a reader decides by: cells beside a baseline on the same documents, the best at each length, how far it holds.

One table a line of figures and length, for print and for programs (`harness.statistics.formats`).
"""

import contextlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.errors import UserError
from harness.logs import progress
from harness.statistics.by_cell import Sums, by_cell
from harness.statistics.context_length import length_of
from harness.statistics.lines import PANEL, label
from harness.statistics.metric import PERPLEXITY, Metric
from harness.statistics.needles import NEEDLE_ACCURACY, reach
from harness.statistics.paired import Pair, pair_of
from harness.statistics.summary import DEFAULT, Averaging, summarize

UNKNOWN = (np.nan, np.nan, np.nan)
EFFECTIVE = ["effective_ctx", "effective_low", "effective_high", "effective_beyond"]
Cells = Mapping[str, Sums]  # by cell_id


class Terms(NamedTuple):
    """By what a table decides."""

    averaging: Averaging = DEFAULT
    metric: Metric = PERPLEXITY
    baseline: str = "none"  # line that ratios divide by
    tolerance: float = 0.05  # of the effective context length


PLAIN = Terms()


def decide(rows: pd.DataFrame, terms: Terms = PLAIN) -> pd.DataFrame:
    """The table of `summarize`, a line for every line that a cell lies on, with what a decision needs beside.

    rows: the metric's. More columns: `curve`; `baseline`, `ratio`, `ratio_low`, `ratio_high`: against the baseline's
    cell of the same panel and length, paired, NaN where there is none or its documents are others; `is_best`: better
    than the cell of every other line at this length by an interval that says so; of perplexity `effective_ctx`,
    `effective_low`, `effective_high`, `effective_beyond` of its line (`effective_context_length`), NaN where its
    lengths have other documents; of needle accuracy `k_max` and `k_farthest` (`reach`). Raises UserError as
    `summarize` does.
    """
    table = label(summarize(rows, terms.averaging, terms.metric))
    cells, lines = by_cell(rows, terms.averaging, terms.metric), []
    groups = table.groupby([*PANEL, "ctx"], sort=False, dropna=False)
    for _, group in progress(groups, "ratios", "length", total=groups.ngroups):
        base = group.loc[group["curve"] == terms.baseline, "cell_id"]
        best = _best(group, cells, terms)
        for index, cell_id in group["cell_id"].items():
            known = not base.empty and base.iloc[0] != cell_id
            ratio = _paired(cells[base.iloc[0]], cells[cell_id], terms) if known else None
            lines.append([index, *(ratio[:3] if ratio else UNKNOWN), cell_id == best])
    columns = ["ratio", "ratio_low", "ratio_high", "is_best"]
    beside = pd.DataFrame(lines, columns=["index", *columns]).set_index("index")
    table = table.join(beside).assign(baseline=terms.baseline)
    table = table.assign(tolerance=terms.tolerance)
    if terms.metric is NEEDLE_ACCURACY:
        table = table.join(reach(rows), on="cell_id")
    return table.merge(_effective(table, cells, terms), on=[*PANEL, "curve"], how="left")


def _paired(baseline: Sums, candidate: Sums, terms: Terms) -> Pair | None:
    try:
        return pair_of(baseline, candidate, terms.averaging, terms.metric)
    except UserError:  # of other documents
        return None


def _best(group: pd.DataFrame, cells: Cells, terms: Terms) -> str | None:
    """The cell that is better than all others, where paired intervals say so; None: none is, or it is alone."""
    values = group.drop_duplicates("cell_id").set_index("cell_id")[terms.metric.name]
    first = str(values.idxmax() if terms.metric.higher_is_better else values.idxmin())
    others = [cell_id for cell_id in values.index if cell_id != first]
    return first if others and all(_is_better(cells[first], cells[other], terms) for other in others) else None


def _is_better(one: Sums, other: Sums, terms: Terms) -> bool:
    found = _paired(other, one, terms)
    if found is None:
        return False
    neutral = terms.metric.neutral
    return found.low > neutral if terms.metric.higher_is_better else found.high < neutral


def _effective(table: pd.DataFrame, cells: Cells, terms: Terms) -> pd.DataFrame:
    """The effective context length by panel and line; empty of other metrics than perplexity."""
    key = [*PANEL, "curve"]
    found = []
    kept_by = table if terms.metric.name == "perplexity" else table.iloc[:0]
    groups = kept_by.groupby(key, sort=False, dropna=False)
    for names, line in progress(groups, "effective lengths", "line", total=groups.ngroups):
        line = line.sort_values("ctx")
        by_length = dict(zip(line["ctx"], (cells[cell_id] for cell_id in line["cell_id"]), strict=True))
        with contextlib.suppress(UserError):  # its lengths have other documents
            kept = length_of(by_length, terms.tolerance, terms.averaging)
            values = [kept[name] for name in ("effective_ctx", "low", "high", "beyond")]
            found.append([*names, *values])
    return pd.DataFrame(found, columns=[*key, *EFFECTIVE])
