"""How far predictions lie from those of a base: metrics from sums, and the statistics of a cell as llama.cpp has them.

Intervals are over documents, as everywhere: of means, ratios, correlation and difference studentised, of percentiles
from resampled documents. Largest and smallest values have none. KL is in nats a token, delta p is the probability of
the true token less that under the base.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.errors import UserError
from harness.results.schema import cell_columns
from harness.statistics.intervals import MIN_DOCUMENTS, Array, Interval, interval, resamples
from harness.statistics.metric import Choice, Load, Metric
from harness.statistics.summary import Averaging, Line

PERCENTILES = (99.9, 99, 95, 90, 75, 50, 25, 10, 5, 1, 0.1)
DRAWS = 400  # of documents, for the limits of percentiles
SUMS = ["num_scored", "nll_sum", "base_nll_sum", "kl_sum", "num_same_top", "delta_p_sum", "delta_p_squares"]
OF_DOCUMENT = ["document_index", "document"]


def _rows(load: Load, choice: Choice) -> pd.DataFrame:
    try:
        return load("kl")
    except UserError as error:
        raise UserError(f"KL needs cells with a base (base.model=... or base.method=...): {error}") from error


KL = Metric(
    name="kl",
    title="KL to the base (nats a token)",
    rows=_rows,
    scale="difference",
    total="kl_sum",
    of_text=True,
    of_positions=True,
)
SAME_TOP = Metric(
    name="same_top",
    title="share of tokens with the base's likeliest token",
    rows=_rows,
    scale="difference",
    total="num_same_top",
    higher_is_better=True,
    of_text=True,
    of_positions=True,
)


def divergences(bins: pd.DataFrame, tokens: pd.DataFrame | None, averaging: Averaging) -> pd.DataFrame:
    """One line a cell with a base: what identifies it, and for every statistic its value, `_low` and `_high`.

    bins: the table kl. tokens: the rows of these cells in the table tokens with their windows' `weight`; without them
    there are neither percentiles nor `correlation` (of the two losses of a token). Statistics beside it: `ppl`,
    `base_ppl`, `ppl_log_ratio`, `ppl_ratio`, `ppl_difference`, `kl`, `same_top`, `delta_p`, `delta_p_rms`; `kl_max`,
    `kl_min`, `kl_p99.9` ... and the same of `delta_p`.
    """
    by_cell = {} if tokens is None else {str(cell_id): own for cell_id, own in tokens.groupby("cell_id")}
    lines: list[Line] = []
    for cell_id, cell in bins.groupby("cell_id", sort=False):
        made = dict(_of_sums(cell, averaging))
        if str(cell_id) in by_cell:
            made |= dict(_of_tokens(by_cell[str(cell_id)], averaging))
        limits = {f"{name}_{end}": getattr(found, end) for name, found in made.items() for end in ("low", "high")}
        counts = {"num_documents": cell["document_index"].nunique(), "num_scored": int(cell["num_scored"].sum())}
        values = {name: found.value for name, found in made.items()}
        columns: Line = cell.iloc[0][cell_columns()].to_dict()
        lines.append(columns | counts | values | limits)
    return pd.DataFrame(lines)


def _of_sums(cell: pd.DataFrame, averaging: Averaging) -> Iterator[tuple[str, Interval]]:
    weighted = cell[SUMS].multiply(cell["weight"], axis=0)
    sums = weighted.groupby([cell[name] for name in OF_DOCUMENT]).sum()

    def mean(total: pd.Series) -> Interval:
        return interval(
            total.to_numpy(np.float64)[:, None], sums["num_scored"].to_numpy(np.float64)[:, None],
            confidence=averaging.confidence, seed=averaging.seed,
        )  # fmt: skip

    yield "ppl", Interval(*np.exp(mean(sums["nll_sum"])))
    yield "base_ppl", Interval(*np.exp(mean(sums["base_nll_sum"])))
    log_ratio = mean(sums["nll_sum"] - sums["base_nll_sum"])
    yield "ppl_log_ratio", log_ratio
    yield "ppl_ratio", Interval(*np.exp(log_ratio))
    losses, counts = (sums[names].to_numpy(np.float64) for names in (["nll_sum", "base_nll_sum"], ["num_scored"]))
    yield "ppl_difference", difference(losses, counts, averaging)
    for name, column in (("kl", "kl_sum"), ("same_top", "num_same_top"), ("delta_p", "delta_p_sum")):
        yield name, mean(sums[column])
    yield "delta_p_rms", Interval(*np.sqrt(np.maximum(mean(sums["delta_p_squares"]), 0)))


def _of_tokens(tokens: pd.DataFrame, averaging: Averaging) -> Iterator[tuple[str, Interval]]:
    weights = tokens["weight"].to_numpy(np.float64)
    documents = np.unique(tokens["document_index"], return_inverse=True)[1]
    yield "correlation", correlation(tokens, weights, documents, averaging)
    for name in ("kl", "delta_p"):
        values = tokens[name].to_numpy(np.float64)
        yield f"{name}_max", Interval(values.max(), np.nan, np.nan)
        found = percentiles(values, weights, documents, averaging)
        yield from ((f"{name}_p{share:g}", one) for share, one in zip(PERCENTILES, found, strict=True))
        yield f"{name}_min", Interval(values.min(), np.nan, np.nan)


def correlation(tokens: pd.DataFrame, weights: Array, documents: NDArray[np.integer], averaging: Averaging) -> Interval:
    """Pearson's correlation of both losses of a token, as llama.cpp has it; NaN where either is always the same.

    weights, documents: as in `percentiles`. Limits: the interval of the mean influence on Fisher's z = atanh r, which
    for standardised x and y is (x y - r (x^2 + y^2) / 2) / (1 - r^2) (Hampel 1974, the influence curve).
    """
    losses = tokens[["nll", "base_nll"]].to_numpy(np.float64)
    centred = losses - np.average(losses, axis=0, weights=weights)
    spread = np.sqrt(np.average(centred**2, axis=0, weights=weights))
    if not (spread > np.finfo(np.float32).eps * np.abs(losses).max(axis=0)).all():
        return Interval(np.nan, np.nan, np.nan)
    x, y = (centred / spread).T
    r = min(1.0, float(np.average(x * y, weights=weights)))
    if (left := 1 - r * r) < np.finfo(np.float32).eps:
        return Interval(r, np.nan, np.nan)
    influence = (x * y - r * (x * x + y * y) / 2) / left
    total, counts = (
        np.bincount(documents, each)[:, None].astype(np.float64) for each in (weights * influence, weights)
    )
    around = interval(total, counts, confidence=averaging.confidence, seed=averaging.seed)
    return Interval(r, *np.tanh(np.arctanh(r) + np.array([around.low, around.high])))


def difference(losses: Array, counts: Array, averaging: Averaging) -> Interval:
    """Perplexity less the base's, of sums of losses (documents, 2) and numbers of tokens (documents, 1).

    Limits: those of the difference as it is linear in both mean losses.
    """
    slopes = np.exp(losses.sum(axis=0) / counts.sum()) * [1, -1]
    both = np.repeat(counts, 2, axis=1)
    line = interval(losses, both, slopes, confidence=averaging.confidence, seed=averaging.seed)
    value = float(slopes.sum())
    return Interval(value, value + line.low - line.value, value + line.high - line.value)


def percentiles(values: Array, weights: Array, documents: NDArray[np.integer], averaging: Averaging) -> list[Interval]:
    """The PERCENTILES of values (tokens,), between the nearest two where all weights are one, as llama.cpp takes them.

    weights: (tokens,), how many each stands for; documents: (tokens,), of which it is, from 0. Limits are NaN below
    MIN_DOCUMENTS documents.
    """
    shares = np.array(PERCENTILES) / 100
    order = np.argsort(values, kind="stable")
    values, weights, documents = values[order], weights[order], documents[order]
    alike = bool((weights == 1).all())
    points = np.quantile(values, shares) if alike else _weighted(values, weights, shares)
    number = int(documents.max()) + 1
    if number < MIN_DOCUMENTS:
        return [Interval(float(point), np.nan, np.nan) for point in points]
    drawn = np.concatenate([np.asarray(block[:DRAWS]) for block in resamples(number, averaging.seed)])[:DRAWS]
    spread = np.array([_weighted(values, weights * counts[documents], shares) for counts in drawn])
    tail = (1 - averaging.confidence) / 2
    low, high = np.quantile(spread, [tail, 1 - tail], axis=0)
    return [Interval(float(p), float(a), float(b)) for p, a, b in zip(points, low, high, strict=True)]


def _weighted(values: Array, weights: Array, shares: Array) -> Array:
    """Of sorted values the first up to which the weights reach these shares, (shares,)."""
    reached = np.cumsum(weights)
    return values[np.searchsorted(reached, shares * reached[-1]).clip(max=len(values) - 1)]


def token_rows(load: Load, bins: pd.DataFrame) -> pd.DataFrame | None:
    """The token rows of the cells of `bins` with their windows' weights; None where they are not kept."""
    try:
        tokens, windows = load("tokens"), load("windows")
    except UserError:
        return None
    tokens = tokens[tokens["cell_id"].isin(bins["cell_id"].unique()) & tokens["kl"].notna()]
    keys = ["cell_id", "document_index", "window"]
    return None if tokens.empty else tokens.merge(windows[[*keys, "weight"]], on=keys)
