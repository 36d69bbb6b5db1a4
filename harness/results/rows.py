"""From losses to rows: each column of the schema, for each of what a table's rows are made from."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from harness.data.documents import Document
from harness.data.scores import Scores
from harness.results import schema


def table_rows(table: str, scored: Scores, document: Document, ctx: int) -> pd.DataFrame:
    """The rows of one document in a table, without the columns that are the same in the whole cell.

    windows: one row a window. positions: one row a bin of positions in windows of `ctx` tokens, and weight. tokens: one
    row a scored token.
    """
    units = schema.named(table).units(scored, document, ctx)
    own = [column for column in schema.columns(table) if not column.of_cell]
    values = [{column.name: column.of(unit) for column in own} for unit in units]
    if any(isinstance(value, np.ndarray) for one in values[:1] for value in one.values()):
        return pd.concat([pd.DataFrame(one) for one in values], ignore_index=True)
    return pd.DataFrame(values)


def tables(
    names: Iterable[str], scored: Sequence[Scores], documents: Sequence[Document], ctx: int
) -> dict[str, pd.DataFrame]:
    """The rows of a cell by table, in the order of `scored`."""
    return {
        name: pd.concat([table_rows(name, s, documents[s.document], ctx) for s in scored], ignore_index=True)
        for name in names
    }
