"""Statements about several cells on the same documents: paired ratios, effective context length, slope.

Every interval here is paired: what makes a document hard is in all cells alike and falls out of their difference.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import UserError, unknown
from harness.statistics import lines as curves
from harness.statistics import summary as statistics
from harness.statistics.intervals import Interval, interval
from harness.statistics.summary import CELL, Ratios


def paired(
    rows: pd.DataFrame, baseline: str = "none", aggregate: str = "token", confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Perplexity of every line over that of the line `baseline`, cell by cell, on the same documents.

    rows: the windows table. One line a cell beside the baseline: identifying columns, `ratio` (below 1: better than the
    baseline) with `low` and `high`, `num_documents`, `num_improved` (documents with a lower loss). Lengths that the
    baseline lacks are left out of the table. Raises UserError for an unknown baseline or differing documents.
    """
    statistics.check(rows, aggregate, confidence)
    cells = curves.label(cell_table(rows))
    if baseline not in set(cells["curve"]):
        raise unknown("baseline", baseline, cells["curve"].unique())
    by_id = dict(list(rows.groupby("cell_id")))
    key = [*curves.PANEL, "ctx"]
    base = cells.loc[cells["curve"] == baseline, [*key, "cell_id"]].rename(columns={"cell_id": "baseline_id"})
    pairs = cells[cells["curve"] != baseline].merge(base, on=key)
    if pairs.empty:
        raise UserError(f"No other line shares a length, model and data set with the baseline {baseline!r}.")
    compared = [
        pair(by_id[line["baseline_id"]], by_id[line["cell_id"]], aggregate, confidence, seed)
        for line in pairs.to_dict("records")
    ]
    return pairs.drop(columns="baseline_id").assign(
        baseline=baseline, aggregate=aggregate, confidence=confidence, **pd.DataFrame(compared)
    )


def pair(
    baseline: pd.DataFrame, candidate: pd.DataFrame, aggregate: str, confidence: float, seed: int = 0
) -> dict[str, Any]:
    """Ratio of perplexities of two cells, candidate over baseline, with its paired interval and the count of wins."""
    ratios = together([baseline, candidate], aggregate)
    estimate = combine(ratios, np.array([-1.0, 1.0]), confidence, seed)
    means = ratios.numerator / ratios.denominator
    return {
        "ratio": float(np.exp(estimate.value)),
        "low": float(np.exp(estimate.low)),
        "high": float(np.exp(estimate.high)),
        "num_documents": len(means),
        "num_improved": int((means[:, 1] < means[:, 0]).sum()),
        "sampled": bool((pd.concat([baseline, candidate])["weight"] != 1).any()),
    }


def effective_context_length(
    rows: pd.DataFrame,
    tolerance: float = 0.05,
    aggregate: str = "token",
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """The length up to which each line keeps its perplexity, one line of the table a line of the figure.

    Lengths are walked upwards from the shortest; each must have a perplexity of at most (1 + tolerance) times the
    lowest at shorter lengths, and `effective_ctx` is the last one before the first that has not. `low` and `high` are
    the same walk with the upper and the lower limit of the paired ratio in place of the ratio, NaN where there is no
    interval. `beyond`: no measured length failed, so the true one may be larger.
    """
    if not tolerance >= 0:
        raise UserError(f"tolerance must be >= 0 (0.05: five per cent above the best), got {tolerance}.")
    lines = []
    for line, cells in _lines(rows, aggregate, confidence):
        lengths = list(cells)
        steps = _steps(list(cells.values()), aggregate, confidence, seed)
        kept = {name: _walk(lengths, [getattr(step, name) for step in steps], tolerance) for name in Interval._fields}
        lines.append(
            line
            | {
                "effective_ctx": kept["value"],
                "low": kept["high"],  # the upper limit of the ratio fails first
                "high": kept["low"],
                "beyond": kept["value"] == lengths[-1],
                "tolerance": tolerance,
                "shortest": lengths[0],
                "longest": lengths[-1],
            }
        )
    return pd.DataFrame(lines)


def effective_text(table: pd.DataFrame) -> str:
    """The table of `effective_context_length` as lines to print: model, line, length with its limits."""
    lines = []
    for row in table.to_dict("records"):
        limits = "" if np.isnan(row["low"]) else f" [{curves.tokens(row['low'])}, {curves.tokens(row['high'])}]"
        at_least = "at least " if row["beyond"] else ""
        lines.append([row["model"], row["curve"], f"{at_least}{curves.tokens(row['effective_ctx'])}{limits}"])
    title = f"effective context length (perplexity within {100 * table['tolerance'].iloc[0]:g} % of the best before):"
    return title + "\n" + pd.DataFrame(lines).to_string(index=False, header=False)


def slope(
    rows: pd.DataFrame, aggregate: str = "token", confidence: float = 0.95, seed: int = 0, shortest: int = 0
) -> pd.DataFrame:
    """Change of log perplexity in nats a doubling of the length: least squares over the lengths from `shortest` on.

    One line of the table a line of the figure, with `slope`, `low`, `high`; lines with a single length have none.
    """
    lines = []
    for line, cells in _lines(rows[rows["ctx"] >= shortest], aggregate, confidence):
        if len(cells) < 2:
            continue
        doublings = np.log2(list(cells))
        centred = doublings - doublings.mean()
        ratios = together(list(cells.values()), aggregate)
        estimate = combine(ratios, centred / (centred @ centred), confidence, seed)
        lines.append(
            line
            | {"slope": estimate.value, "low": estimate.low, "high": estimate.high}
            | {"num_documents": len(ratios.numerator), "shortest": min(cells), "longest": max(cells)}
        )
    return pd.DataFrame(lines, columns=None if lines else [*curves.PANEL, "curve", "slope", "low", "high"])


def cell_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What identifies the cells of a table, one line a cell."""
    return rows.drop_duplicates("cell_id")[CELL].reset_index(drop=True)


def together(cells: Sequence[pd.DataFrame], aggregate: str) -> Ratios:
    """The sums of several cells, document by document. Raises UserError unless all have the same documents."""
    sums = [statistics.document_ratios(cell, aggregate) for cell in cells]
    for one in sums[1:]:
        apart = sums[0].index.symmetric_difference(one.index)
        if len(apart):
            raise UserError(
                f"Cells can be compared on the same documents only; {len(apart)} are in one and not in the other, "
                f"the first of them {apart[0][1]!r}."
            )
    numerator = np.column_stack([one["numerator"].to_numpy(np.float64) for one in sums])
    denominator = np.column_stack([one["denominator"].to_numpy(np.float64) for one in sums])
    return Ratios(numerator, denominator, log=aggregate == "mean_of_perplexities")


def combine(ratios: Ratios, coefficients: np.ndarray, confidence: float, seed: int) -> Interval:
    """Interval of a linear combination of log perplexities."""
    return interval(
        ratios.numerator, ratios.denominator, coefficients, log=ratios.log, confidence=confidence, seed=seed
    )


def _lines(
    rows: pd.DataFrame, aggregate: str, confidence: float
) -> Iterator[tuple[dict[Any, Any], dict[int, pd.DataFrame]]]:
    """Each line of the figure: what identifies it, and its cells' windows by length, shortest first."""
    statistics.check(rows, aggregate, confidence)
    by_id = dict(list(rows.groupby("cell_id")))
    for _, panel in curves.panels(curves.label(cell_table(rows)), "ctx", "curve"):
        for name, cells in panel.groupby("curve", sort=True):
            ordered = cells.sort_values("ctx")
            known = ordered.iloc[0][[*curves.PANEL, "method"]].to_dict()
            yield known | {"curve": name}, dict(zip(ordered["ctx"], ordered["cell_id"].map(by_id.get), strict=True))


def _steps(cells: list[pd.DataFrame], aggregate: str, confidence: float, seed: int) -> list[Interval]:
    """For each length but the first: log ratio of its perplexity to the lowest at shorter lengths."""
    ratios = together(cells, aggregate)
    means = ratios.numerator.sum(axis=0) / ratios.denominator.sum(axis=0)
    steps = []
    for place in range(1, len(cells)):
        coefficients = np.zeros(len(cells))
        coefficients[place] = 1.0
        coefficients[int(np.argmin(means[:place]))] = -1.0
        steps.append(combine(ratios, coefficients, confidence, seed))
    return steps


def _walk(lengths: list[int], log_ratios: list[float], tolerance: float) -> float:
    """The last length before the first whose ratio exceeds the tolerance; NaN where a ratio is unknown."""
    if np.isnan(log_ratios).any():
        return np.nan
    failed = [length for length, step in zip(lengths[1:], log_ratios, strict=True) if step > np.log1p(tolerance)]
    return float(lengths[lengths.index(failed[0]) - 1] if failed else lengths[-1])
