"""Ratios of perplexities on the same documents.

Every interval here is paired: what makes a document hard is in all cells alike and falls out of their difference.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.errors import UserError, unknown
from harness.logs import progress
from harness.results.schema import cell_columns
from harness.statistics.by_cell import Sums, by_cell, same_documents
from harness.statistics.lines import PANEL, label
from harness.statistics.metric import PERPLEXITY, Metric
from harness.statistics.summary import DEFAULT, Averaging, check, combine


class Pair(NamedTuple):
    """A candidate's perplexity over that of a baseline (of other metrics as their scale says), with paired limits."""

    ratio: float  # or the difference
    low: float
    high: float
    num_documents: int
    num_improved: int  # documents with a lower loss (a better value)
    sampled: bool


def paired(
    rows: pd.DataFrame, baseline: str = "none", averaging: Averaging = DEFAULT, metric: Metric = PERPLEXITY
) -> pd.DataFrame:
    """Perplexity of every line over that of the line `baseline`, cell by cell, on the same documents.

    rows: the windows table. One line a cell beside the baseline: identifying columns and those of `Pair` (a ratio below
    1 is better than the baseline). Lengths that the baseline lacks are left out of the table. Raises UserError for an
    unknown baseline or differing documents.
    """
    check(rows, metric)
    cells = label(cell_table(rows))
    if baseline not in set(cells["curve"]):
        raise unknown("baseline", baseline, cells["curve"].unique())
    key = [*PANEL, "ctx"]
    base = cells.loc[cells["curve"] == baseline, [*key, "cell_id"]].rename(columns={"cell_id": "baseline_id"})
    pairs = cells[cells["curve"] != baseline].merge(base, on=key)
    if pairs.empty:
        raise UserError(f"No other line shares a length, model and data set with the baseline {baseline!r}.")
    sums = by_cell(rows, averaging, metric)
    places = progress(zip(pairs["baseline_id"], pairs["cell_id"], strict=True), "pairs", "cell", total=len(pairs))
    compared = [pair_of(sums[one], sums[other], averaging, metric) for one, other in places]
    return pairs.drop(columns="baseline_id").assign(
        metric=metric.name,
        baseline=baseline,
        aggregate=averaging.aggregate,
        confidence=averaging.confidence,
        **pd.DataFrame(compared),
    )


def pair(
    baseline: pd.DataFrame, candidate: pd.DataFrame, averaging: Averaging = DEFAULT, metric: Metric = PERPLEXITY
) -> Pair:
    """Two cells compared, candidate over baseline (of some metrics: less it); each a metric's rows.

    Raises UserError for differing documents.
    """
    (one,), (other,) = (by_cell(rows.assign(cell_id=""), averaging, metric).values() for rows in (baseline, candidate))
    return pair_of(one, other, averaging, metric)


def pair_of(baseline: Sums, candidate: Sums, averaging: Averaging = DEFAULT, metric: Metric = PERPLEXITY) -> Pair:
    """As `pair`, of the sums of two cells (`harness.statistics.by_cell`)."""
    ratios = same_documents([baseline, candidate])
    ratio, low, high = (metric.value(bound) for bound in combine(ratios, np.array([-1.0, 1.0]), averaging))
    means = ratios.numerator / ratios.denominator * (-1.0 if metric.higher_is_better else 1.0)
    improved = int((means[:, 1] < means[:, 0]).sum())
    return Pair(ratio, low, high, len(means), improved, baseline.sampled or candidate.sampled)


def cell_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What identifies the cells of a table, one line a cell."""
    cells = rows.drop_duplicates("cell_id")[cell_columns()].reset_index(drop=True)
    return cells.assign(base=cells["base"].fillna(""))  # cells of before there were bases have none
