"""Ratios of perplexities on the same documents.

Every interval here is paired: what makes a document hard is in all cells alike and falls out of their difference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.errors import UserError, unknown
from harness.results.schema import cell_columns
from harness.statistics.lines import PANEL, label
from harness.statistics.metric import PERPLEXITY, Metric
from harness.statistics.summary import DEFAULT, Averaging, Ratios, check, combine, document_ratios, together


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
    by_id = dict(list(rows.groupby("cell_id")))
    key = [*PANEL, "ctx"]
    base = cells.loc[cells["curve"] == baseline, [*key, "cell_id"]].rename(columns={"cell_id": "baseline_id"})
    pairs = cells[cells["curve"] != baseline].merge(base, on=key)
    if pairs.empty:
        raise UserError(f"No other line shares a length, model and data set with the baseline {baseline!r}.")
    compared = [
        pair(by_id[line["baseline_id"]], by_id[line["cell_id"]], averaging, metric) for line in pairs.to_dict("records")
    ]
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
    ratios = same_documents([baseline, candidate], averaging, metric)
    ratio, low, high = (metric.value(bound) for bound in combine(ratios, np.array([-1.0, 1.0]), averaging))
    means = ratios.numerator / ratios.denominator * (-1.0 if metric.higher_is_better else 1.0)
    improved = int((means[:, 1] < means[:, 0]).sum())
    sampled = bool((pd.concat([baseline, candidate])["weight"] != 1).any())
    return Pair(ratio, low, high, len(means), improved, sampled)


def cell_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What identifies the cells of a table, one line a cell."""
    cells = rows.drop_duplicates("cell_id")[cell_columns()].reset_index(drop=True)
    return cells.assign(base=cells["base"].fillna(""))  # cells of before there were bases have none


def same_documents(cells: Sequence[pd.DataFrame], averaging: Averaging, metric: Metric = PERPLEXITY) -> Ratios:
    """The sums of several cells, arrays (documents, cells). Raises UserError unless all have the same documents."""
    sums = [document_ratios(cell, averaging.aggregate, metric) for cell in cells]
    for one in sums[1:]:
        apart = sums[0].index.symmetric_difference(one.index)
        if len(apart):
            raise UserError(
                f"Cells can be compared on the same documents only; {len(apart)} are in one and not in the other, "
                f"the first of them {apart[0][1]!r}."
            )
    return together(sums, averaging, metric)
