"""What a winner may be picked by: how a cell scores, and how two compare on the same documents.

One more metric is one more entry in METRICS: a function of a cell's rows that gives a value with its limits, and one
of two cells' rows that gives their paired difference or ratio.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.statistics.intervals import Interval
from harness.statistics.paired import pair
from harness.statistics.summary import Averaging, document_ratios, perplexity, together


class Metric(NamedTuple):
    """A number that says how good a cell is."""

    meaning: str
    table: str  # of results, from which it is computed
    value: Callable[[pd.DataFrame, Averaging], Interval]  # of one cell
    against: Callable[[pd.DataFrame, pd.DataFrame, Averaging], Interval]  # of a baseline and a candidate, paired
    equal: float  # what `against` gives where two cells are alike
    smaller_is_better: bool = True


def _perplexity(rows: pd.DataFrame, averaging: Averaging) -> Interval:
    return perplexity(together([document_ratios(rows, averaging.aggregate)], averaging), averaging)


def _ratio(baseline: pd.DataFrame, candidate: pd.DataFrame, averaging: Averaging) -> Interval:
    compared = pair(baseline, candidate, averaging)
    return Interval(compared.ratio, compared.low, compared.high)


METRICS: dict[str, Metric] = {
    "perplexity": Metric("perplexity, and ratios of perplexities", "windows", _perplexity, _ratio, equal=1.0),
}


def excludes(limits: Interval, value: float) -> bool:
    """Whether an interval lies on one side of a value; False where there are no limits."""
    return bool(np.isfinite(limits.low) and not limits.low <= value <= limits.high)
