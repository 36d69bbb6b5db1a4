"""Rows of a table group by group, thousands of groups in one pass."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from harness.statistics.intervals import Array


class Apart:
    """Rows by what sets them apart (their cell, say), those of a group one after another in their order."""

    def __init__(self, rows: pd.DataFrame, columns: list[str], *, sort: bool = False) -> None:
        """By the values of these columns; groups as they come, or with `sort` in the order of the values."""
        codes = rows.groupby(columns, sort=sort, dropna=False).ngroup().to_numpy()
        order = np.argsort(codes, kind="stable")
        self.rows = rows.iloc[order]
        self.groups = pd.Series(codes[order], index=self.rows.index)  # the number of each row's group
        self.ends = np.searchsorted(codes[order], np.arange(codes.max() + 1), side="right")  # (groups,): places of rows
        self.begins = np.concatenate([[0], self.ends[:-1]])
        self._columns: dict[str, Array] = {}

    def first(self) -> list[dict[Hashable, Any]]:
        """The first row of each group, by column."""
        return self.rows.iloc[self.begins].to_dict("records")

    def of(self, place: int, column: str) -> Array:
        """A column's numbers in a group, (rows of it,)."""
        if column not in self._columns:
            self._columns[column] = self.rows[column].to_numpy(np.float64)
        return self._columns[column][self.begins[place] : self.ends[place]]
