"""What a line says of context lengths: the effective one, and the slope of log perplexity against it.

All intervals are paired: the lengths of a line are compared on the same documents.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from harness.errors import UserError
from harness.logs import progress
from harness.statistics.by_cell import Sums, by_cell, same_documents
from harness.statistics.intervals import Interval
from harness.statistics.lines import PANEL, label, panels
from harness.statistics.paired import cell_table
from harness.statistics.summary import DEFAULT, Averaging, Line, check, combine


def effective_context_length(
    rows: pd.DataFrame, tolerance: float = 0.05, averaging: Averaging = DEFAULT
) -> pd.DataFrame:
    """The length up to which each line keeps its perplexity, one line of the table a line of the figure.

    rows: the windows table. Lengths are walked upwards from the shortest; each must have a perplexity of at most
    (1 + tolerance) times the lowest at shorter lengths, and `effective_ctx` is the last one before the first that has
    not. `low` and `high` are the same walk with the upper and the lower limit of the paired ratio in place of the
    ratio, NaN where there is no interval. `beyond`: no measured length failed, so the true one may be larger.
    """
    if not tolerance >= 0:
        raise UserError(f"tolerance must be >= 0 (0.05: five per cent above the best), got {tolerance}.")
    lines = progress(_lines(rows, averaging), "effective lengths", "line")
    return pd.DataFrame([line | length_of(cells, tolerance, averaging) for line, cells in lines])


def length_of(cells: Mapping[int, Sums], tolerance: float, averaging: Averaging = DEFAULT) -> Line:
    """The effective context length of one line, as `effective_context_length` has it.

    cells: the sums of each length (`by_cell`), shortest first. Raises UserError where lengths have different documents.
    """
    lengths = list(cells)
    steps = _steps(list(cells.values()), averaging)
    kept = Interval(*(_walk(lengths, [step[bound] for step in steps], tolerance) for bound in range(3)))
    return {
        "effective_ctx": kept.value,
        "low": kept.high,  # the upper limit of the ratio fails first
        "high": kept.low,
        "beyond": kept.value == lengths[-1],
        "tolerance": tolerance,
        "shortest": lengths[0],
        "longest": lengths[-1],
    }


def slope(rows: pd.DataFrame, averaging: Averaging = DEFAULT, shortest: int = 0) -> pd.DataFrame:
    """Change of log perplexity in nats a doubling of the length: least squares over the lengths from `shortest` on.

    rows: the windows table; shortest in tokens. One line of the table a line of the figure, with `slope`, `low`,
    `high`; lines with a single length have none.
    """
    lines = []
    for line, cells in progress(_lines(rows[rows["ctx"] >= shortest], averaging), "slopes", "line"):
        if len(cells) < 2:
            continue
        doublings = np.log2(list(cells))
        centred = doublings - doublings.mean()
        ratios = same_documents(list(cells.values()))
        estimate = combine(ratios, centred / (centred @ centred), averaging)
        lines.append(
            line
            | {"slope": estimate.value, "low": estimate.low, "high": estimate.high}
            | {"num_documents": len(ratios.numerator), "shortest": min(cells), "longest": max(cells)}
        )
    return pd.DataFrame(lines, columns=None if lines else [*PANEL, "curve", "slope", "low", "high"])


def _lines(rows: pd.DataFrame, averaging: Averaging) -> list[tuple[Line, dict[int, Sums]]]:
    """Each line of the figure: what identifies it, and its cells' sums by length, shortest first."""
    check(rows)
    sums, lines = by_cell(rows, averaging), []
    for _, panel in panels(label(cell_table(rows)), "ctx", "curve"):
        for name, cells in panel.groupby("curve", sort=True):
            ordered = cells.sort_values("ctx")
            known = ordered.iloc[0][[*PANEL, "method"]].to_dict()
            by_length = zip(ordered["ctx"], (sums[cell_id] for cell_id in ordered["cell_id"]), strict=True)
            lines.append((known | {"curve": name}, dict(by_length)))
    return lines


def _steps(cells: list[Sums], averaging: Averaging) -> list[Interval]:
    """For each length but the first: log ratio of its perplexity to the lowest at shorter lengths."""
    ratios = same_documents(cells)
    means = ratios.numerator.sum(axis=0) / ratios.denominator.sum(axis=0)
    steps = []
    for place in range(1, len(cells)):
        coefficients = np.zeros(len(cells))
        coefficients[place] = 1.0
        coefficients[int(np.argmin(means[:place]))] = -1.0
        steps.append(combine(ratios, coefficients, averaging))
    return steps


def _walk(lengths: list[int], log_ratios: list[float], tolerance: float) -> float:
    """The last length before the first whose ratio exceeds the tolerance; NaN where a ratio is unknown."""
    if np.isnan(log_ratios).any():
        return np.nan
    failed = [length for length, step in zip(lengths[1:], log_ratios, strict=True) if step > np.log1p(tolerance)]
    return float(lengths[lengths.index(failed[0]) - 1] if failed else lengths[-1])
