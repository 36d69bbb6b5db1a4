"""The metrics by name; one more is one entry (and its file), and plot, compare and report know it."""

import pandas as pd

from harness.errors import unknown
from harness.statistics.divergence import KL, SAME_TOP
from harness.statistics.far_copies import FAR_COPIES
from harness.statistics.gain import GAIN
from harness.statistics.in_context import IN_CONTEXT
from harness.statistics.longppl import LONGPPL
from harness.statistics.metric import BITS_PER_BYTE, BYTE_PERPLEXITY, PERPLEXITY, WORD_PERPLEXITY, Metric
from harness.statistics.needles import OF_NEEDLES

_ALL = (
    PERPLEXITY,
    BITS_PER_BYTE,
    BYTE_PERPLEXITY,
    WORD_PERPLEXITY,
    LONGPPL,
    FAR_COPIES,
    GAIN,
    IN_CONTEXT,
    *OF_NEEDLES,
    KL,
    SAME_TOP,
)
METRICS: dict[str, Metric] = {one.name: one for one in _ALL}


def named(name: str) -> Metric:
    """The metric of a name. Raises UserError for an unknown one."""
    if name not in METRICS:
        raise unknown("metric", str(name), METRICS)
    return METRICS[name]


def metric_of(table: pd.DataFrame) -> Metric:
    """The metric of a table of `summarize` or `paired`."""
    return METRICS[table["metric"].iloc[0]]
