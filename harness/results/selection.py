"""Which cells of a results directory are looked at: by the values of columns, or those of the last command."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from harness.errors import UserError, unknown
from harness.results import store
from harness.storage.files import check_regular, write_text

LAST = ".last.json"  # in a results directory: the cells of the command that ended last

OF_SHOWN = ("method", "factor", "ctx", "protocol", "protocol_params", "stride")  # `around` leaves them open


@dataclass(frozen=True)
class Selection:
    """Cells by their columns' values; `last`: of those, the cells of the last command alone."""

    where: Mapping[str, object] = field(default_factory=dict)  # column: value, or a list of them; None: any
    last: bool = False


EVERYTHING = Selection()


def load(results: str | Path, table: str = "windows", *, selection: Selection = EVERYTHING) -> pd.DataFrame:
    """Rows of a table under a results directory that belong to the selection.

    Raises UserError where a column or a value does not occur, or no command has ended there.
    """
    return fitting(store.load_results(results, table), results, table, selection)


def around(selection: Selection) -> Selection:
    """The selection, and cells that those in it may stand beside: short windows, other lengths, evaluators."""
    return Selection({name: wanted for name, wanted in selection.where.items() if name not in OF_SHOWN})


def fitting(rows: pd.DataFrame, results: str | Path, table: str, selection: Selection) -> pd.DataFrame:
    """Those rows of a table that belong to the selection. Raises UserError as `load` does."""
    if selection.last:
        rows = rows[rows["cell_id"].str.split(":").str[0].isin(last_cells(Path(results)))]
        if rows.empty:
            raise UserError(f"the last command into {str(results)!r} has no finished cells there.")
    for column, wanted in selection.where.items():
        if wanted is not None:
            rows = _those(rows, results, table, column, wanted)
    return rows


def _those(rows: pd.DataFrame, results: str | Path, table: str, column: str, wanted: object) -> pd.DataFrame:
    if column not in rows and table != "windows":  # which have every column of a cell
        windows = load(results, selection=Selection({column: wanted}))
        return rows[rows["cell_id"].isin(windows["cell_id"])]
    if column not in rows:
        raise unknown("column (where)", str(column), sorted(rows.columns))
    values = wanted if isinstance(wanted, list) else [wanted]
    if not all(value is None or isinstance(value, str | int | float) for value in values):
        raise UserError(f"where.{column} must be a value or a list of values, got {wanted!r}.")
    kept = rows[rows[column].isin([value for value in values if _may_occur(value)])]
    if kept.empty:
        given = ", ".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)
        raise unknown(f"{column} (where.{column})", given, rows[column].dropna().astype(str).unique())
    return kept


def _may_occur(value: object) -> bool:
    """Whether any column can hold it: not halves of characters, as a shell hands on bytes that are no UTF-8."""
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return not isinstance(value, int) or abs(value) < 2**63


def note_last(results: Path, command: str, cells: Iterable[str]) -> None:
    """Remember the cells of a command that ends now."""
    text = json.dumps({"command": command, "cells": sorted(set(cells))}, indent=1)
    write_text(results / LAST, text, what="the list of the last command's cells")


def last_cells(results: Path) -> set[str]:
    """Ids of the cells of the command that ended last. Raises UserError where none has."""
    try:
        check_regular(results / LAST)
        return set(json.loads((results / LAST).read_text())["cells"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"no command has ended in {str(results)!r} yet, so there are no cells of a last one.") from None
