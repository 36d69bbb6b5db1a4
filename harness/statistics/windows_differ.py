"""Whether two runs scored the same windows of the same documents."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.statistics.apart import Apart

WINDOW = ["document_index", "document", "window", "begin", "end", "score_from", "bos", "weight", "num_bytes"]


class Windows:
    """The windows of every cell of one run."""

    def __init__(self, rows: pd.DataFrame, count: str) -> None:
        """rows: the windows table, or another metric's; count: the column of what was scored."""
        apart = Apart(rows, ["cell_id"])
        self.rows, self.count = apart.rows, count
        ids = apart.rows["cell_id"].iloc[apart.begins].astype(str)
        self._places = dict(zip(ids, map(slice, apart.begins, apart.ends), strict=True))
        self._columns: dict[str, NDArray[Any]] = {
            name: apart.rows[name].to_numpy() for name in [*WINDOW, count] if name in rows
        }

    def differ(self, cell_id: str, other: "Windows", other_id: str) -> str | None:
        """How a cell's windows differ from those of another run's cell, in words; None where they do not."""
        here, there = self._places[cell_id], other._places[other_id]
        both = [name for name in self._columns if name in other._columns]
        if all(np.array_equal(self._columns[name][here], other._columns[name][there]) for name in both):
            return None  # in another order, or with values missing, they may be the same nevertheless
        return _difference(self.rows.iloc[here], other.rows.iloc[there], self.count)


def _difference(before: pd.DataFrame, after: pd.DataFrame, count: str) -> str | None:
    counts = [rows.groupby("document")[count].sum() for rows in (before, after)]
    table = pd.concat(counts, axis=1, keys=["before", "after"]).fillna(0).astype(int)
    changed = table[table["before"] != table["after"]]
    if not changed.empty:
        first = changed.iloc[0]
        return (
            f"{len(changed)} documents have other scored tokens, {changed.index[0]!r} {first['before']} before "
            f"and {first['after']} after"
        )
    known = [column for column in WINDOW if column in before and column in after]
    windows = [rows.sort_values(known)[known].reset_index(drop=True) for rows in (before, after)]
    if not windows[0].equals(windows[1]):
        return "the windows lie elsewhere or are weighted otherwise"
    return None
