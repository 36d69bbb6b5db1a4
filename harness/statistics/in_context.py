"""In-context-learning score: loss at position 500 less loss at position 50, in nats; below 0: context is learned from.

Olsson et al. 2022, arXiv:2209.11895. Each position is the bin of the positions table that holds it: [45, 64) and
[362, 512). A document's score is the difference of its two means, a cell's the mean over its documents.
"""

import pandas as pd

from harness.statistics.metric import NOTE, Choice, Load, Metric
from harness.statistics.summary import DEFAULT, Averaging, document_ratios, summarize
from harness.statistics.token_losses import Lacking

EARLY, LATE = 50, 500  # tokens that precede
KEY = ["cell_id", "document_index", "document"]


def _rows(load: Load, choice: Choice) -> pd.DataFrame:
    """A row a document that has both bins."""
    positions = load("positions")
    early, late = (_means(positions, place) for place in (EARLY, LATE))
    score = (late - early).dropna()  # of documents with both bins
    both = pd.concat([score, _counted(positions)], axis=1, join="inner", keys=["score", "num_scored"])
    if both.empty:
        raise Lacking(
            f"in_context_score needs windows of more than {LATE} tokens; the longest of these cells scores "
            f"{positions['position_end'].max()} positions."
        )
    known = positions.drop_duplicates("cell_id").drop(columns=["document_index", "document", "num_scored", "nll_sum"])
    note = f"loss at position {LATE} less loss at {EARLY}"
    return both.reset_index().merge(known, on="cell_id").assign(documents=1, window=0, weight=1.0, **{NOTE: note})


IN_CONTEXT = Metric(
    name="in_context_score",
    title="in-context-learning score (nats)",
    rows=_rows,
    scale="difference",
    total="score",
    count="documents",
    even=0.0,
)


def in_context_score(positions: pd.DataFrame, averaging: Averaging = DEFAULT) -> pd.DataFrame:
    """The table of `summarize`, a line a cell; cells whose windows end before position 500 have none.

    positions: the positions table. Raises UserError where no cell has a score.
    """
    return summarize(IN_CONTEXT.rows(lambda table: positions, Choice()), averaging, IN_CONTEXT)


def _at(positions: pd.DataFrame, place: int) -> pd.DataFrame:
    return positions[(positions["position_begin"] <= place) & (place < positions["position_end"])]


def _means(positions: pd.DataFrame, place: int) -> pd.Series:
    """Of the loss of each document, nats a token, by KEY."""
    own = _at(positions, place)
    sums = document_ratios(own, "token", apart=[own["cell_id"]])
    return sums["numerator"] / sums["denominator"]


def _counted(positions: pd.DataFrame) -> pd.Series:
    """Tokens of both bins, by KEY."""
    own = pd.concat([_at(positions, place) for place in (EARLY, LATE)])
    return own.groupby(KEY)["num_scored"].sum()
