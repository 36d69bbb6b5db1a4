"""Tables as they are written, and files of before and of other writers: whether one can be read, and as what."""

import contextlib
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

from harness.results.schema import TEXT, Column, arrow, columns


def file_version(metadata: Mapping[bytes, bytes]) -> int:
    """Of the schema that a file was written with; a file that does not say is of version 1."""
    return int(metadata.get(b"schema_version", b"1"))


def fault(table: str, found: pa.Schema, num_rows: int, *, exact: bool) -> str | None:
    """Why a file with this schema and number of rows cannot be read as a table; None: it can.

    A column that it lacks is no fault where the column is younger than the file. `exact`: types as they are written
    today, not only such as a reader can take for them.
    """
    if num_rows and found.equals(arrow(table)):
        return None
    written = file_version(found.metadata or {})
    known, names = columns(table), found.names
    lacking = [c.name for c in known if c.name not in names and c.since <= written]
    if lacking:
        return f"it lacks the column {lacking[0]}, which files of schema version {written} have"
    twice = [c.name for c in known if names.count(c.name) > 1]
    if twice:
        return f"it has the column {twice[0]} twice"
    for column in known:
        if column.name in names:
            given = found.field(column.name).type
            if given != column.type and (exact or not _stands_for(given, column.type)):
                return f"its column {column.name} is of type {given}, not {column.type}"
    return None if num_rows else "it has no rows"


def _stands_for(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of one type, as other writers choose it, may be meant by another."""
    if pa.types.is_null(given):
        return True
    if wanted == TEXT:
        return pa.types.is_large_string(given) or pa.types.is_string_view(given)
    return all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in (given, wanted))


def fitted(table: str, content: pa.Table, provenance: Mapping[str, Any]) -> pa.Table:
    """The content of a file without `fault` as the table of today: columns of today, null where it lacks one.

    A lacking column that the file's provenance tells is as told there.
    """

    if content.schema.equals(arrow(table)):
        return content.replace_schema_metadata()

    def filled(column: Column) -> pa.Array:
        value = None
        if column.recorded is not None:
            with contextlib.suppress(KeyError, TypeError, AttributeError):  # of another program, or older
                value = column.recorded(provenance)
        return pa.repeat(pa.scalar(value, column.type), content.num_rows)

    def column(wanted: Column) -> pa.Array | pa.ChunkedArray:
        if wanted.name not in names:
            return filled(wanted)
        given = content[wanted.name]
        return given if given.type == wanted.type else given.cast(wanted.type)

    names = set(content.column_names)
    return pa.table([column(wanted) for wanted in columns(table)], schema=arrow(table))


def whole(rows: pd.DataFrame, of_cell: Mapping[str, Any], wanted: pa.Schema) -> pa.Table:
    """The rows of a cell's table as they are written: with the columns `of_cell`, which are the same in all of them."""

    def column(field: pa.Field) -> pa.Array:
        if field.name in of_cell and field.name not in rows:
            value = of_cell[field.name]
            known = None if value is None or value != value else value  # no number is null, as pandas has it
            return pa.repeat(pa.scalar(known, field.type), len(rows))
        return pa.Array.from_pandas(rows[field.name], type=field.type)

    return pa.Table.from_arrays([column(field) for field in wanted], schema=wanted)
