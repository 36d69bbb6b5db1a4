"""The metrics by name; one more is one entry (and its file), and plot, compare and report know it."""

import pandas as pd

from harness.errors import unknown
from harness.statistics.metric import BITS_PER_BYTE, BYTE_PERPLEXITY, PERPLEXITY, WORD_PERPLEXITY, Metric

METRICS: dict[str, Metric] = {one.name: one for one in (PERPLEXITY, BITS_PER_BYTE, BYTE_PERPLEXITY, WORD_PERPLEXITY)}


def named(name: str) -> Metric:
    """The metric of a name. Raises UserError for an unknown one."""
    if name not in METRICS:
        raise unknown("metric", str(name), METRICS)
    return METRICS[name]


def metric_of(table: pd.DataFrame) -> Metric:
    """The metric of a table of `summarize` or `paired`."""
    return METRICS[table["metric"].iloc[0]]
