"""Finished cells as parquet files: written whole or not at all, never read half.

A cell has up to three files beside each other: `<cell>.windows.parquet` (always; written last, so that its presence
means the cell is finished), `<cell>.positions.parquet` and `<cell>.tokens.parquet`.
"""

import contextlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import UserError, first_line
from harness.storage.files import storage, write_atomically

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
TABLES = ("positions", "tokens", "windows")  # windows last: it marks the cell as finished

_CELL_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("cell_id", pa.string()),
    ("experiment", pa.string()),
    ("model", pa.string()),
    ("model_revision", pa.string()),
    ("method", pa.string()),
    ("method_params", pa.string()),
    ("factor", pa.float64()),
    ("original_max_position_embeddings", pa.int64()),
    ("ctx", pa.int64()),
    ("protocol", pa.string()),
    ("protocol_params", pa.string()),
    ("stride", pa.int64()),
    ("dataset", pa.string()),
    ("dataset_fingerprint", pa.string()),
    ("dtype", pa.string()),
]
CELL_COLUMNS = [name for name, _ in _CELL_COLUMNS]

_DOCUMENT = [("document", pa.string()), ("document_index", pa.int64())]
_SUMS = [("num_scored", pa.int64()), ("nll_sum", pa.float64()), ("weight", pa.float64())]

SCHEMAS: dict[str, pa.Schema] = {
    "windows": pa.schema(
        [
            *_CELL_COLUMNS,
            *_DOCUMENT,
            ("window", pa.int64()),
            ("begin", pa.int64()),
            ("end", pa.int64()),
            ("score_from", pa.int64()),
            ("bos", pa.bool_()),
            *_SUMS,
            ("num_bytes", pa.int64()),
        ]
    ),
    "positions": pa.schema(
        [*_CELL_COLUMNS, *_DOCUMENT, ("position_begin", pa.int64()), ("position_end", pa.int64()), *_SUMS]
    ),
    "tokens": pa.schema(
        [
            ("cell_id", pa.string()),
            *_DOCUMENT,
            ("window", pa.int64()),
            ("token", pa.int64()),
            ("nll", pa.float32()),
        ]
    ),
}


def place(results: Path, columns: Mapping[str, Any]) -> Path:
    """Where a cell lies, without the ending of its files: results/<model>/<method>/ctx<ctx>-<cell_id>."""
    return results / safe(columns["model"]) / safe(columns["method"]) / f"ctx{columns['ctx']}-{columns['cell_id']}"


def table_file(cell: Path, table: str = "windows") -> Path:
    """The file of a table of the cell at a `place`."""
    return cell.with_name(f"{cell.name}.{table}.parquet")


def safe(name: str) -> str:
    """A name as one path component: nothing that a path or a shell would read as more than a name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".")[:100] or "_"


def is_finished(cell: Path, tables: Sequence[str], run_id: str | None = None) -> bool:
    """Whether every one of `tables` is there and whole; with `run_id`, only as written by that run.

    What lies in their place and is no table of this cell is named and set aside.
    """
    found = [_metadata(table_file(cell, table), cell) for table in tables]
    return all(m is not None and run_id in (None, m.get("run_id")) for m in found)


def _metadata(file: Path, cell: Path) -> dict[str, Any] | None:
    """What a whole table file of a cell says of its making; None where there is none."""
    try:
        metadata = _open(file).schema_arrow.metadata or {}
        if not cell.name.endswith(metadata.get(b"cell_id", b"?").decode()):
            raise ValueError(f"it is not of the cell {cell.name}")
        return json.loads(metadata[b"provenance"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        _set_aside(file, error)
        return None


def _open(file: Path) -> pq.ParquetFile:
    """A parquet file that was read once from end to end, checksums compared."""
    opened = pq.ParquetFile(file, page_checksum_verification=True)
    opened.read()
    return opened


def _set_aside(file: Path, error: Exception) -> None:
    """Rename a file that is not what its name says, so that it is neither read nor lost."""
    aside = file.with_name(f"{file.name}.set-aside-{time.time_ns()}")
    log.warning("%s is not a results file (%s); set aside as %s", file, first_line(error), aside.name)
    with storage(file.parent), contextlib.suppress(FileNotFoundError):
        os.rename(file, aside)


def write(
    results: Path, columns: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], provenance: Mapping[str, Any]
) -> Path:
    """Write the tables of a finished cell, the windows last; returns the windows file.

    `provenance` (resolved configuration, versions, device, seconds, ...) goes into every file's metadata as JSON.
    Raises StorageError, and leaves what was there.
    """
    assert "windows" in tables
    cell = place(results, columns)
    metadata = {
        "cell_id": columns["cell_id"],
        "schema_version": str(SCHEMA_VERSION),
        "provenance": json.dumps(provenance, sort_keys=True, default=str),
    }
    for name in TABLES:
        if name in tables:
            table = _arrow(tables[name], columns, SCHEMAS[name]).replace_schema_metadata(metadata)
            write_atomically(table_file(cell, name), partial(_fill, table))
    return table_file(cell)


def _fill(table: pa.Table, stream: IO[bytes]) -> None:
    pq.write_table(table, stream, compression="zstd", write_page_checksum=True)


def _arrow(rows: pd.DataFrame, columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    constant = {name: columns[name] for name in schema.names if name in columns and name not in rows}
    return pa.Table.from_pandas(rows.assign(**constant)[schema.names], schema=schema, preserve_index=False)


def check_writable(folder: Path, what: str = "results") -> None:
    """Raise StorageError unless files can be made in `folder`; creates the directory."""
    with storage(folder, what):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass


def load_results(path: str | Path, table: str = "windows") -> pd.DataFrame:
    """All rows of a table under a results directory (or of one file) as one tidy DataFrame.

    Files that are no table of ours are named in a warning and left out. Raises UserError where nothing is found.
    """
    root = Path(path)
    if not root.exists():
        raise UserError(f"results path {str(root)!r} does not exist.")
    files = [root] if root.is_file() else sorted(root.rglob(f"*.{table}.parquet"))
    read = [rows for file in files if (rows := _read(file, SCHEMAS[table])) is not None]
    if not read:
        raise UserError(f"no finished cells (*.{table}.parquet) under {str(root)!r}.")
    rows = pd.concat(read, ignore_index=True)
    keys = [c for c in ("cell_id", "document_index", "window", "position_begin", "token", "weight") if c in rows]
    return rows.drop_duplicates(keys).reset_index(drop=True)


def _read(file: Path, schema: pa.Schema) -> pd.DataFrame | None:
    try:
        table = pq.ParquetFile(file, page_checksum_verification=True).read()
        return table.select(schema.names).cast(schema).to_pandas()
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        log.warning("%s is not a results file (%s); left out", file, first_line(error))
        return None


def provenance(file: str | Path) -> dict[str, Any]:
    """What a results file records of its making: configuration, versions, device, cost."""
    metadata = pq.read_schema(file).metadata or {}
    return json.loads(metadata.get(b"provenance", b"{}"))


def write_frame(file: Path, frame: pd.DataFrame) -> None:
    """Write a table that is not of a cell, atomically. Raises StorageError."""
    write_atomically(file, partial(_fill, pa.Table.from_pandas(frame, preserve_index=False)))
