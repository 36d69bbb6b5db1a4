"""Numbers, and what tables and figures say of how they were averaged, in words."""

import numpy as np
import pandas as pd

from harness.statistics.lines import tokens
from harness.statistics.metric import NOTE
from harness.statistics.metrics import METRICS


def documents(count: int | str, table: pd.DataFrame) -> str:
    """So many documents, or whatever else the metric of a table samples, in words."""
    return f"{count} {unit(table)}{'' if count == 1 else 's'}"


def unit(table: pd.DataFrame) -> str:
    """What is sampled: a document, of needles a repeat."""
    return METRICS[table["metric"].iloc[0]].unit if "metric" in table else "document"


def counted(table: pd.DataFrame) -> list[str]:
    """What a metric counts, and how many of them a cell has: `key tokens by dca: 27 at 4k`; empty: it says nothing."""
    if NOTE not in table:
        return []
    phrases = []
    for note, rows in table.groupby(NOTE, sort=True):
        counts = []
        for length in sorted(rows["ctx"].unique()):
            ends = rows.loc[rows["ctx"] == length, "num_scored"].agg(["min", "max"]).unique()
            counts.append(f"{' to '.join(map(str, ends))} at {tokens(length)}")
        phrases.append(f"{note}: {', '.join(counts)}")
    return phrases


def averaging_phrase(table: pd.DataFrame, intervals: bool = True) -> str:
    """`token aggregate, 95 % intervals over 8 documents`, as far as all cells agree."""
    counts = sorted(table["num_documents"].unique())
    how_many = documents(counts[0] if len(counts) == 1 else f"{counts[0]} to {counts[-1]}", table)
    weighting = ", ".join(str(name).replace("_", " ") for name in table["aggregate"].unique())
    sampled = ", sampled windows" if table["sampled"].any() else ""
    if "shorter" in table and table["shorter"].notna().any():
        sampled = f", those shorter than a window whole{sampled}"
    sampled += "".join(f", {phrase}" for phrase in counted(table))
    if not intervals:
        return f"{weighting} aggregate, {how_many}{sampled}"
    if table["low"].isna().all():
        return f"{weighting} aggregate, {how_many}, too few for intervals{sampled}"
    return f"{weighting} aggregate, {100 * table['confidence'].iloc[0]:g} % intervals over {how_many}{sampled}"


def number(value: float) -> str:
    """A value with as many digits as anyone reads: 0.00123, 3.142, 29.87, 358.2, 12345."""
    if np.isnan(value):
        return "-"
    if 0 < abs(value) < 0.1:
        return f"{value:.3g}"
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.3g}"
