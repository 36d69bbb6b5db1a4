"""Finished cells as parquet files: written whole or not at all, never read half.

A cell has up to three files beside each other: `<cell>.windows.parquet` (always; written last, so that its presence
means the cell is finished), `<cell>.positions.parquet` and `<cell>.tokens.parquet`.
"""

import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import UserError

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


def cell_path(results: Path, columns: Mapping[str, Any], table: str = "windows") -> Path:
    """Where a table of a cell lies: results/<model>/<method>/ctx<ctx>-<cell_id>.<table>.parquet."""
    folder = results / _safe(columns["model"]) / _safe(columns["method"])
    return folder / f"ctx{columns['ctx']}-{columns['cell_id']}.{table}.parquet"


def _safe(name: str) -> str:
    """A name as one path component: nothing that a path or a shell would read as more than a name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".") or "_"


def is_finished(results: Path, columns: Mapping[str, Any], tables: list[str]) -> bool:
    """Whether every one of `tables` of this cell is there and readable."""
    return all(_is_valid(cell_path(results, columns, t), columns["cell_id"]) for t in tables)


def _is_valid(file: Path, cell_id: str) -> bool:
    try:
        metadata = pq.read_schema(file).metadata or {}
    except FileNotFoundError:
        return False
    except (OSError, pa.ArrowException) as error:
        log.warning("%s is unreadable (%s); its cell will be computed again", file, str(error).splitlines()[0])
        return False
    return metadata.get(b"cell_id", b"").decode() == cell_id


def write(
    results: Path, columns: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], provenance: Mapping[str, Any]
) -> Path:
    """Write the tables of a finished cell, the windows last; returns the windows file.

    `provenance` (resolved configuration, versions, device, seconds, ...) goes into every file's metadata as JSON.
    """
    assert "windows" in tables
    metadata = {
        "cell_id": columns["cell_id"],
        "schema_version": str(SCHEMA_VERSION),
        "provenance": json.dumps(provenance, sort_keys=True, default=str),
    }
    for name in TABLES:
        if name in tables:
            table = _arrow(tables[name], columns, SCHEMAS[name])
            _write_atomically(cell_path(results, columns, name), table.replace_schema_metadata(metadata))
    return cell_path(results, columns)


def _arrow(rows: pd.DataFrame, columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    constant = {name: columns[name] for name in schema.names if name in columns and name not in rows}
    return pa.Table.from_pandas(rows.assign(**constant)[schema.names], schema=schema, preserve_index=False)


def _write_atomically(file: Path, table: pa.Table) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".writing-", delete=False) as stream:
            try:
                pq.write_table(table, stream, compression="zstd")
                stream.flush()
                os.fsync(stream.fileno())
                os.replace(stream.name, file)
            except BaseException:
                Path(stream.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise UserError(f"results cannot be written to {str(file.parent)!r}: {error.strerror or error}") from error


def check_writable(results: Path) -> None:
    """Raise UserError unless files can be made in `results`; creates the directory."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=results):
            pass
    except OSError as error:
        raise UserError(f"results_dir {str(results)!r} is not writable: {error.strerror or error}") from error


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
        table = pq.ParquetFile(file).read()
        return table.select(schema.names).cast(schema).to_pandas()
    except (OSError, KeyError, pa.ArrowException) as error:
        log.warning("%s is not a results file (%s); left out", file, str(error).splitlines()[0])
        return None


def provenance(file: str | Path) -> dict[str, Any]:
    """What a results file records of its making: configuration, versions, device, cost."""
    metadata = pq.read_schema(file).metadata or {}
    return json.loads(metadata.get(b"provenance", b"{}"))
