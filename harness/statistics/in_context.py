"""In-context-learning score: loss at position 500 less loss at position 50, in nats; below 0: context is learned from.

Olsson et al. 2022, arXiv:2209.11895. Each position is the bin of the positions table that holds it: [45, 64) and
[362, 512).
"""

import numpy as np
import pandas as pd

from harness.statistics.intervals import Interval
from harness.statistics.summary import DEFAULT, Averaging, Ratios, combine, document_ratios

EARLY, LATE = 50, 500  # tokens that precede


def in_context_score(positions: pd.DataFrame, averaging: Averaging = DEFAULT) -> dict[str, Interval]:
    """The score of each cell with paired limits, by cell_id; cells whose windows end before position 500 have none.

    positions: the positions table. A document without both bins does not count.
    """
    scores = {}
    for cell_id, rows in positions.groupby("cell_id", sort=False):
        early, late = (document_ratios(_at(rows, place), "token") for place in (EARLY, LATE))
        both = early.add_suffix("_early").join(late.add_suffix("_late"), how="inner")
        if both.empty:
            continue
        numerator = both[["numerator_early", "numerator_late"]].to_numpy()
        denominator = both[["denominator_early", "denominator_late"]].to_numpy()
        scores[str(cell_id)] = combine(Ratios(numerator, denominator, log=False), np.array([-1.0, 1.0]), averaging)
    return scores


def _at(rows: pd.DataFrame, place: int) -> pd.DataFrame:
    return rows[(rows["position_begin"] <= place) & (place < rows["position_end"])]
