"""From windows to numbers: perplexity with its interval, one line a cell.

A cell is a ratio of sums over its documents d, whose windows w have n_w scored tokens, a loss of L_w nats in sum,
and a weight v_w (1, or what a sampled window stands for):

    log perplexity = sum_d y_d / sum_d x_d

    aggregate               y_d                                    x_d             is exp of
    `token`                 sum_w v_w L_w                          sum_w v_w n_w   the mean over tokens
    `window`                sum_w v_w L_w / n_w                    sum_w v_w       the mean of window means
    `document`              sum_w v_w L_w / sum_w v_w n_w          1               the mean of document means
    `mean_of_perplexities`  exp(sum_w v_w L_w / sum_w v_w n_w)     1               nothing: the ratio is the perplexity

The document is the sampling unit everywhere; the spread that sampling windows adds within a document is part of the
spread between documents that the intervals measure. Works on the tidy tables; knows no files and draws nothing.
"""

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from harness.errors import UserError, unknown
from harness.logs import progress
from harness.results.schema import cell_columns
from harness.statistics.apart import Apart
from harness.statistics.intervals import Array, Interval, interval
from harness.statistics.metric import LOSS, NOTE, PERPLEXITY, SHORT, Metric
from harness.statistics.of_text import in_short_windows, of_text

Aggregate = Literal["token", "window", "document", "mean_of_perplexities"]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)
DOCUMENT = ["document_index", "document"]
Line = dict[Hashable, Any]  # a line of a table, by column


@dataclass(frozen=True)
class Averaging:
    """How windows become one number with an interval; the same for every statement about one set of results."""

    aggregate: Aggregate = "token"
    confidence: float = 0.95  # of intervals over documents
    seed: int = 0  # of the resamples that intervals are made from

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise unknown("aggregate", str(self.aggregate), AGGREGATES)
        if not isinstance(self.confidence, int | float) or not 0 < self.confidence < 1:
            raise UserError(f"confidence must lie between 0 and 1, got {self.confidence}.")
        if type(self.seed) is not int or self.seed < 0:
            raise UserError(f"seed must be an integer >= 0, got {self.seed!r}.")


DEFAULT = Averaging()


class Ratios(NamedTuple):
    """Per document and cell: the ratio of sums is what is combined (log perplexity), or its logarithm is, if `log`."""

    numerator: Array  # (documents, cells)
    denominator: Array  # (documents, cells)
    log: bool  # the ratio is a perplexity, so its logarithm is what is combined
    shares: bool = False  # of few values


def ratios_of(apart: Apart, averaging: Averaging, metric: Metric = PERPLEXITY) -> list[Ratios]:
    """Of each group, arrays (documents, 1)."""
    sums = document_ratios(apart.rows, averaging.aggregate, metric, [apart.groups])
    groups = sums.index.get_level_values(0).to_numpy()
    places = np.searchsorted(groups, np.arange(len(apart.ends) + 1))
    whole, ends = together([sums], averaging, metric), itertools.pairwise(places)
    return [whole._replace(numerator=whole.numerator[a:b], denominator=whole.denominator[a:b]) for a, b in ends]


def summarize(rows: pd.DataFrame, averaging: Averaging = DEFAULT, metric: Metric = PERPLEXITY) -> pd.DataFrame:
    """One line a cell: what identifies it, perplexity (or another metric) with interval, counts, bits per byte.

    rows: the windows table, or the rows of the metric. `low` and `high` are NaN below five documents; `bits_per_byte`
    is always of token sums where the metric is another; `sampled` says that only some windows were scored; `note` what
    a metric counts beside that, and with whom; `short_windows` the perplexity of the same tokens in short windows.
    """
    check(rows, metric)
    apart = Apart(rows, ["cell_id"])
    ratios = progress(ratios_of(apart, averaging, metric), "intervals", "cell")
    cells = enumerate(zip(apart.first(), ratios, strict=True))
    lines = [_line(cell, place, apart, own, averaging, metric) for place, (cell, own) in cells]
    order = ["model", "dataset", "protocol", "protocol_params", "method", "method_params", "ctx", "cell_id"]
    return pd.DataFrame(lines).sort_values(order, ignore_index=True, kind="stable")


def _line(cell: Line, place: int, apart: Apart, ratios: Ratios, averaging: Averaging, metric: Metric) -> Line:
    """Of one cell; `cell`: its first row, by column."""
    estimate = perplexity(ratios, averaging, metric)
    return {
        **{name: cell[name] for name in cell_columns()},
        "aggregate": averaging.aggregate,
        "confidence": averaging.confidence,
        "metric": metric.name,
        metric.name: estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "num_documents": len(ratios.numerator),
        "num_windows": len(apart.of(place, "weight")),
        "num_scored": int(apart.of(place, "num_scored").sum()),
        "sampled": bool((apart.of(place, "weight") != 1).any()),
        **{name: value for name, value in of_text(apart, place).items() if name != metric.name},
        **({NOTE: cell[NOTE]} if NOTE in cell else {}),
        **({"short_windows": in_short_windows(apart, place)} if SHORT in cell else {}),
    }


def perplexity(ratios: Ratios, averaging: Averaging, metric: Metric = PERPLEXITY) -> Interval:
    """Perplexity (or another metric) of one cell with its limits; those of perplexity are formed on the logarithm."""
    return Interval(*(metric.value(bound) for bound in combine(ratios, np.ones(1), averaging)))


def point(cell: pd.DataFrame, aggregate: Aggregate, metric: Metric = PERPLEXITY) -> float:
    """A metric of one cell alone, without an interval."""
    sums = document_ratios(cell, aggregate, metric).sum()
    return value_of(float(sums["numerator"] / sums["denominator"]), aggregate, metric)


def value_of(ratio: float, aggregate: Aggregate, metric: Metric = PERPLEXITY) -> float:
    """A metric's value, where the ratio of its sums over documents is this."""
    return float(np.exp(ratio)) if metric.scale == "exp" and aggregate != "mean_of_perplexities" else ratio


def check(rows: pd.DataFrame, metric: Metric = PERPLEXITY) -> None:
    """Raise UserError for no rows, or losses that are no numbers."""
    if rows.empty:
        raise UserError("There are no results to summarise: the table of windows is empty.")
    least = 0 if metric.of_text else 1
    bad = rows[~np.isfinite(rows[metric.total]) | ~(rows[metric.count] >= least) | ~(rows["weight"] > 0)]
    if not bad.empty:
        row = bad.iloc[0]
        raise UserError(
            f"Every window needs a finite {metric.total}, {metric.count} >= {least} and weight > 0; "
            f"document {row['document']!r} window {row['window']} has {metric.total} {row[metric.total]}, "
            f"{metric.count} {row[metric.count]}, weight {row['weight']}."
        )


def document_ratios(
    cell: pd.DataFrame, aggregate: Aggregate, metric: Metric = PERPLEXITY, apart: Sequence[pd.Series] = ()
) -> pd.DataFrame:
    """One line a document of one cell: `numerator` y_d and `denominator` x_d of its aggregate.

    `apart`: for the rows of several cells, what they are told apart by, (rows,); the lines of each one after another.
    """
    weight = cell["weight"].astype(np.float64)
    keys = [cell[name] for name in DOCUMENT]
    total, count = cell[metric.total], cell[metric.count]
    if aggregate == "mean_of_perplexities" and metric.scale != "exp":
        raise UserError(f"{metric.name} has no mean of perplexities; aggregate must be token, window or document.")
    if aggregate == "window" and metric.of_text:
        raise UserError(
            f"{metric.name} has no mean of windows; aggregate must be token, document or mean_of_perplexities."
        )
    if aggregate == "window":
        numerator, denominator = weight * total / count, weight
    else:
        numerator, denominator = weight * total, weight * count
    sums = pd.DataFrame({"numerator": numerator, "denominator": denominator}).groupby([*apart, *keys], sort=True).sum()
    if metric.of_text and not (sums["denominator"] > 0).all():
        empty = sums.index[~(sums["denominator"] > 0)][0]
        raise UserError(f"{metric.name}: document {empty[-1]!r} has no {metric.count} among its scored tokens.")
    if aggregate in ("document", "mean_of_perplexities"):
        mean = sums["numerator"] / sums["denominator"]
        sums["numerator"] = np.exp(mean) if aggregate == "mean_of_perplexities" else mean
        sums["denominator"] = 1.0
    return sums


def together(sums: Sequence[pd.DataFrame], averaging: Averaging, metric: Metric = PERPLEXITY) -> Ratios:
    """The `document_ratios` of cells of the same documents, as arrays (documents, cells)."""
    numerator = np.column_stack([one["numerator"].to_numpy(np.float64) for one in sums])
    denominator = np.column_stack([one["denominator"].to_numpy(np.float64) for one in sums])
    return Ratios(numerator, denominator, is_logarithm(averaging, metric), metric.of_shares)


def is_logarithm(averaging: Averaging, metric: Metric) -> bool:
    """Whether the logarithms of ratios are combined, which are values already."""
    return averaging.aggregate == "mean_of_perplexities" or metric.scale == "ratio"


def combine(ratios: Ratios, coefficients: Array, averaging: Averaging) -> Interval:
    """Interval of a linear combination of log perplexities; coefficients: (cells,)."""
    return interval(
        ratios.numerator,
        ratios.denominator,
        coefficients,
        log=ratios.log,
        shares=ratios.shares,
        confidence=averaging.confidence,
        seed=averaging.seed,
    )


def loss_by_position(positions: pd.DataFrame, averaging: Averaging = DEFAULT, metric: Metric = LOSS) -> pd.DataFrame:
    """Mean loss by position in the window, one line a cell and bin, with intervals over documents.

    positions: the positions table, or the rows of another metric of positions, whose mean then has its name. A bin is a
    mean over tokens whatever the aggregate of perplexities is, and says so.
    Columns beside the cell's: `position` (geometric middle of the bin, tokens that precede), `nll` (nats a token),
    `low`, `high`, `num_documents`, `num_scored`.
    """
    check(positions.assign(window=positions["position_begin"]), metric)
    averaging = replace(averaging, aggregate="token")
    apart = Apart(positions, ["cell_id", "position_begin", "position_end"], sort=True)
    ratios = progress(ratios_of(apart, averaging, metric), "intervals", "bin")
    bins = enumerate(zip(apart.first(), ratios, strict=True))
    return pd.DataFrame([_bin(known, place, apart, own, averaging, metric) for place, (known, own) in bins])


def _bin(known: Line, place: int, apart: Apart, ratios: Ratios, averaging: Averaging, metric: Metric) -> Line:
    """Of one bin; `known`: its first row, by column."""
    estimate = combine(ratios, np.ones(1), averaging)
    begin, end = known["position_begin"], known["position_end"]
    return {
        **{name: known[name] for name in cell_columns()},
        "position_begin": begin,
        "position_end": end,
        "position": float(np.sqrt(begin * (end - 1))),
        metric.name: estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "num_documents": len(ratios.numerator),
        "num_scored": int(apart.of(place, "num_scored").sum()),
        "aggregate": averaging.aggregate,
        "confidence": averaging.confidence,
        "sampled": bool((apart.of(place, "weight") != 1).any()),
    }
