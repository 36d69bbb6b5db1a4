"""Needles: what the number in the fact is worth to its answer, and how often the answer is found.

    gain = sum over needles (loss of the answer with a wrong number in the fact - with the right one) / answer tokens
    accuracy = needles whose every answer token was the likeliest / needles

over the needles of a cell: depths and repeats. The sampling unit is the repeat: all depths of one share a haystack, a
fact and its numbers. Greedy decoding gives the answer exactly where every token of it is the likeliest.
"""

import pandas as pd

from harness.errors import UserError
from harness.statistics.metric import NOTE, Choice, Load, Metric
from harness.statistics.summary import DEFAULT, Averaging, summarize

NEEDLE = ["cell_id", "repeat", "depth"]
FOUND = 0.2  # share of needles that counts as finding them, as in Position Interpolation's paper


def _needles(load: Load) -> pd.DataFrame:
    """The right documents, with `nll_sum_wrong`, the loss of the same answer in the document with the wrong number."""
    rows = load("windows")
    rows = rows[rows["depth"].notna()] if "depth" in rows else rows.iloc[:0]
    if rows.empty:
        raise UserError("needles are measured in cells of data=needles or data=passkey, and there are none.")
    wanted = rows["right"].astype(bool)
    right, wrong = rows[wanted], rows[~wanted]
    pairs = right.merge(wrong[[*NEEDLE, "nll_sum", "num_scored"]], on=[*NEEDLE, "num_scored"], suffixes=("", "_wrong"))
    if not len(pairs) == len(right) == len(wrong):
        cell = rows["cell_id"].iloc[0]
        raise UserError(f"every needle needs a right and a wrong document with one answer; cell {cell} lacks some.")
    repeat = pairs["repeat"].astype(int)
    return pairs.assign(
        document="repeat " + repeat.astype(str),
        document_index=repeat,
        window=pairs["depth"].rank(method="dense").astype(int) - 1,
    ).drop(columns=["num_bytes", "num_words"])


def _gains(load: Load, choice: Choice) -> pd.DataFrame:
    rows = _needles(load)
    return rows.assign(nll_gained=rows["nll_sum_wrong"] - rows["nll_sum"], **{NOTE: "answer tokens"})


def _found(load: Load, choice: Choice) -> pd.DataFrame:
    rows = _needles(load)
    if rows["num_top1"].isna().any():
        raise UserError("needle_accuracy needs cells that say which tokens were the likeliest, and some do not.")
    found = (rows["num_top1"] == rows["num_scored"]).astype(float)
    return rows.assign(found=found, needles=1, **{NOTE: "answer tokens"})


NEEDLE_GAIN = Metric(
    name="needle_gain",
    title="needle gain (nats a token)",
    rows=_gains,
    scale="difference",
    total="nll_gained",
    higher_is_better=True,
    unit="repeat",
    even=0.0,
)
NEEDLE_ACCURACY = Metric(
    name="needle_accuracy",
    title="needle accuracy",
    rows=_found,
    scale="difference",
    total="found",
    count="needles",
    higher_is_better=True,
    of_shares=True,
    unit="repeat",
)
OF_NEEDLES = (NEEDLE_GAIN, NEEDLE_ACCURACY)


def by_depth(rows: pd.DataFrame, averaging: Averaging = DEFAULT, metric: Metric = NEEDLE_GAIN) -> pd.DataFrame:
    """As `summarize`, one line a cell and depth; rows: those of the metric."""
    parts = [summarize(own, averaging, metric).assign(depth=depth) for depth, own in rows.groupby("depth")]
    return pd.concat(parts, ignore_index=True)


def reach(rows: pd.DataFrame, share: float = FOUND) -> pd.DataFrame:
    """How far back needles are found: by cell_id `k_max` and `k_farthest`, in tokens; 0: at no distance.

    k_max is the largest distance at which, and at every smaller one, at least `share` of the needles are found: the
    effective context window of Chen et al. 2023, arXiv:2306.15595, 3.4. k_farthest is the largest distance at which
    they are, whatever lies between. Distances are those of the cell's depths: (1 - depth) x ctx, from the fact to the
    end, to within the lengths of fact and question; the nearest depth stands for all that is nearer.
    rows: those of NEEDLE_ACCURACY.
    """
    found = {}
    for cell_id, own in rows.groupby("cell_id", sort=False):
        own = own.assign(distance=((1 - own["depth"].astype(float)) * own["ctx"]).round().astype(int))
        accuracy = own.groupby("distance")["found"].mean().sort_index()
        enough = accuracy >= share
        found[cell_id] = [_last(accuracy.index[enough.cummin()]), _last(accuracy.index[enough])]
    return pd.DataFrame.from_dict(found, orient="index", columns=["k_max", "k_farthest"])


def _last(distances: pd.Index) -> int:
    return int(distances.max()) if len(distances) else 0
