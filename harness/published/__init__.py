"""Perplexities that papers printed, as data.

Three files beside this one: tables.csv (where numbers were printed, and how they were measured), curves.csv (a model
under a method in such a table), points.csv (a length and a value). `load` joins them to one tidy table.
"""

import re
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from harness.errors import UserError, unknown

HERE = Path(__file__).parent
Line = dict[Hashable, Any]  # a row of the table, by column


# The table that shows what a paper is known for; other papers show every table of perplexities.
MAIN_TABLES = {
    "yarn": ["data/proofpile-long-small.csv"],
    "pi": ["Table 1", "Table 2"],
    "longrope": ["Table 5"],
}


@cache
def _load() -> pd.DataFrame:
    read = {name: pd.read_csv(HERE / f"{name}.csv", dtype=str, keep_default_na=False) for name in _FILES}
    joined = read["points"].merge(read["curves"], on="curve_id").merge(read["tables"], on="table_id")
    for name in ("ctx", "value", "train_ctx", "num_documents"):
        joined[name] = pd.to_numeric(joined[name])
    return joined.drop(columns="table_id")


_FILES = ("tables", "curves", "points")


def load() -> pd.DataFrame:
    """Every published number, one row each.

    `ctx` and `train_ctx` in tokens; `value` is in the unit of `metric`, and `qualifier` says what it is: eq the value,
    gt a bound that the value exceeds, oom, nan or not_tested no value. `protocol_class` tells what it averages over.
    """
    return _load().copy()


def papers() -> list[str]:
    """Short names of the papers and other sources."""
    return sorted(_load()["paper"].unique())


def select(
    paper: str, table: str | None = None, dataset: str | None = None, metric: str = "perplexity"
) -> pd.DataFrame:
    """The numbers of one paper, by default those of its main tables, with a column `curve` that names each line.

    Raises UserError for a paper, table or data set that is not there.
    """
    rows = load()
    if paper not in papers():
        raise unknown("paper", paper, papers())
    rows = rows[(rows["paper"] == paper) & (rows["metric"] == metric) & rows["ctx"].notna()]
    if rows.empty:
        raise UserError(f"{paper} has no {metric} against context length.")
    for column, wanted in (("table", table), ("dataset", dataset)):
        if wanted is not None and wanted not in set(rows[column]):
            raise unknown(f"{column} of {paper}", wanted, rows[column].unique())
    main = MAIN_TABLES.get(paper, list(rows["table"].unique()))
    rows = rows[rows["table"].isin([table] if table is not None else main)]
    rows = rows[rows["dataset"] == dataset] if dataset is not None else rows
    if rows.empty:
        raise UserError(f"{paper} has no numbers for table {table!r} and dataset {dataset!r} together.")
    return name_curves(rows)


def name_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a column `curve`: model and the printed label, more where two lines of a panel share them."""
    lines = rows.drop_duplicates("curve_id").set_index("curve_id")
    names = pd.Series([_name(line) for line in lines.to_dict("records")], index=lines.index)
    for column, word in _DISTINCTIONS:
        panel = [lines["table"], lines["dataset"], lines["documents"], names]
        differ = lines[column].groupby(panel).transform("nunique") > 1
        text = lines[column].map(lambda value: f"{value:g}" if isinstance(value, float) else str(value))
        names = names.where(~(differ & ~text.isin(["", "nan"])), names + ", " + word + text)
    return rows.assign(curve=rows["curve_id"].map(names))


_DISTINCTIONS = (
    ("method", ""),
    ("factor", "factor "),
    ("train_ctx", "trained at "),
    ("finetuned", "finetuned "),
    ("source_kind", ""),
)
_HUB_ID = re.compile(r"[\w.-]+/([\w.-]+)")


def _name(line: Line) -> str:
    if found := _HUB_ID.fullmatch(line["variant"]):
        return found[1]
    label = line["variant"] or line["method"]
    return label if label.startswith(line["model"]) else f"{line['model']} {label}"
