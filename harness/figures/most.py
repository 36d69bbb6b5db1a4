"""How much a figure draws: beyond that nobody can read it, and what is left out is said below it."""

import pandas as pd

from harness.figures.folding import Panel
from harness.statistics.lines import PANEL, label
from harness.statistics.metric import Metric
from harness.statistics.paired import cell_table

MOST_LINES = 40
MOST_PANELS = 36
OTHERS = "where=... (--where) selects others"


def most_lines(
    table: pd.DataFrame, hue: str, value: str, what: str, *, higher: bool = False, x: str = "ctx"
) -> tuple[pd.DataFrame, str]:
    """The rows of at most MOST_LINES values of `hue`, and in words what is left out ("" where nothing is).

    Kept are the unscaled model and the lines that are best (lowest `value`, or `higher`) at the end of their `x` in a
    panel; `what` says in words what the value is.
    """
    names = table[hue].astype(str)
    if names.nunique() <= MOST_LINES:
        return table, ""
    by = [name for name in PANEL if name in table and name != hue]
    ends = table.assign(name=names, panel=table.groupby(by, dropna=False).ngroup() if by else 0)
    ends = ends.sort_values(x, kind="stable").groupby(["panel", "name"]).tail(1)
    places = ends.groupby("panel")[value].rank(ascending=not higher).fillna(len(ends))
    best = places.groupby(ends["name"]).min()
    kept = sorted(best.index, key=lambda name: (name != "none", best[name], name))[:MOST_LINES]
    order = "highest" if higher else "lowest"
    note = f"{len(kept)} of {len(best)} lines are drawn, those with the {order} {what} at their end; {OTHERS}."
    return table[names.isin(kept)], note


def most_of(table: pd.DataFrame, hue: str, metric: Metric) -> tuple[pd.DataFrame, str]:
    """As `most_lines`, by a metric."""
    return most_lines(table, hue, metric.name, metric.title, higher=metric.higher_is_better)


def most_cells(positions: pd.DataFrame, total: str, count: str) -> tuple[pd.DataFrame, str]:
    """As `most_lines`, of rows by position, before anything is computed of them: by the mean of total over count."""
    sums = positions.assign(total=positions[total] * positions["weight"], count=positions[count] * positions["weight"])
    sums = sums.groupby("cell_id")[["total", "count"]].sum()
    cells = label(cell_table(positions))
    cells = cells.assign(value=cells["cell_id"].map(sums["total"] / sums["count"]))
    kept, note = most_lines(cells, "curve", "value", "mean")
    return (positions[positions["cell_id"].isin(kept["cell_id"])], note) if note else (positions, "")


def most_panels(parts: list[Panel]) -> tuple[list[Panel], str]:
    """The first MOST_PANELS panels, and in words how many are left out."""
    if len(parts) <= MOST_PANELS:
        return parts, ""
    return parts[:MOST_PANELS], f"The first {MOST_PANELS} of {len(parts)} panels are drawn; {OTHERS}."
