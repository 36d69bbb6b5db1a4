"""Finished cells as parquet files: written whole or not at all, never read half.

A cell has its tables (`schema.TABLES`) as files beside each other: `<cell>.positions.parquet`, with save_tokens
`<cell>.tokens.parquet`, and `<cell>.windows.parquet`, written last, so that its presence means the cell is finished.
"""

import contextlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from harness.errors import UserError, unknown
from harness.results import fitting, parquet, schema
from harness.results.checked import Checked
from harness.results.parquet import Footer, NotATable
from harness.results.under import sets_apart, tables_under
from harness.storage.files import storage, write_atomically

log = logging.getLogger(__name__)


# Where a cell lies ---------------------------------------------------------------------------------------------------


def place(results: Path, columns: Mapping[str, Any]) -> Path:
    """Where a cell lies, without the ending of its files: results/<model>/<method>/ctx<ctx>-<cell_id>."""
    return results / safe(columns["model"]) / safe(columns["method"]) / f"ctx{columns['ctx']}-{columns['cell_id']}"


def table_file(cell: Path, table: str = "windows") -> Path:
    """The file of a table of the cell at a `place`."""
    return cell.with_name(f"{cell.name}.{table}.parquet")


def safe(name: str) -> str:
    """A name as one path component: nothing that a path or a shell would read as more than a name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".")[:100] or "_"


# What is finished ----------------------------------------------------------------------------------------------------


def is_finished(cell: Path, tables: Iterable[str], run_id: str | None = None) -> bool:
    """Whether `load_results` reads every one of `tables` of this cell; with `run_id`, only as written by that run.

    Reads footers and changes nothing. A table that is younger than the cell's files is not missed. Raises StorageError
    where the system does not let a file be read: then nothing is known of it.
    """
    windows = _intact_footer(cell, "windows")
    if windows is None:
        return False
    for name in tables:
        found = _intact_footer(cell, name)
        if found is None and (windows.version >= schema.named(name).since or table_file(cell, name).exists()):
            return False
        if found is not None and run_id not in (None, found.provenance.get("run_id")):
            return False
    return True


def set_damaged_aside(tables: Iterable[tuple[Path, str]]) -> None:
    """Rename what lies in place of tables and is none, with a line for each; reads the files whole.

    What it has read of windows is remembered for the table at the end of the run, as far as it is small.

    `tables`: the `place` of a cell, and the name of a table of it. Once, at the start of a run: nothing else renames or
    removes a table. Raises StorageError, and renames nothing that could not be read.
    """
    named = {table_file(cell, name): (cell, name) for cell, name in tables}

    def damage(file: Path) -> NotATable | None:
        cell, table = named[file]
        try:
            _footer(cell, table)
            if table == "windows":
                _checked.keep(file, parquet.state(file), parquet.read(file, table))
            else:
                parquet.check(file)
        except FileNotFoundError:
            return None
        except NotATable as error:
            return error
        return None

    for file, error in zip(named, parquet.each(list(named), damage, "checking results"), strict=True):
        if error is not None:
            _set_aside(file, error)


_checked = Checked(most=2**26)  # bytes


def _intact_footer(cell: Path, table: str) -> Footer | None:
    try:
        return _footer(cell, table)
    except (FileNotFoundError, NotATable):
        return None


def _footer(cell: Path, table: str) -> Footer:
    """Of a table of this cell, as this program wrote it. Raises FileNotFoundError, NotATable, StorageError."""
    file = table_file(cell, table)
    return _understood(file, cell.name, table, parquet.state(file), schema.version())


@lru_cache(maxsize=100_000)
def _understood(file: Path, cell: str, table: str, state: tuple[int, ...], version: int) -> Footer:
    """The footer of a file in a state of it: a run asks several times what is finished."""
    found = parquet.footer(file)
    with parquet.reading(file):
        if not cell.endswith(found.metadata.get(b"cell_id", b"?").decode()):
            raise NotATable(f"it is not of the cell {cell}")
        if b"provenance" not in found.metadata:
            raise NotATable("it does not say how it was made")
        if fault := fitting.fault(table, found.schema, found.num_rows, exact=True):
            raise NotATable(fault)
        _ = found.provenance
    return found


def _set_aside(file: Path, error: NotATable) -> None:
    """Rename a file that is not what its name says, so that it is neither read nor lost."""
    aside = file.with_name(f"{file.name}.set-aside-{time.time_ns()}")
    log.warning("%s is not a results file (%s); set aside as %s", file, error, aside.name)
    with storage(file.parent), contextlib.suppress(FileNotFoundError):
        os.rename(file, aside)


# Writing -------------------------------------------------------------------------------------------------------------


def write(
    results: Path, columns: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], provenance: Mapping[str, Any]
) -> Path:
    """Write the tables of a finished cell, the windows last; returns the windows file.

    `columns`: those of the cell, by name. `provenance` (resolved configuration, versions, device, seconds, ...) goes
    into every file's metadata as JSON. Raises StorageError, and leaves what was there.
    """
    assert "windows" in tables
    cell = place(results, columns)
    metadata = {
        "cell_id": columns["cell_id"],
        "schema_version": str(schema.version()),
        "provenance": json.dumps(provenance, sort_keys=True, default=str),
    }
    for name in schema.writing_order(tables):
        content = fitting.whole(tables[name], columns, schema.arrow(name)).replace_schema_metadata(metadata)
        write_atomically(table_file(cell, name), partial(parquet.fill, content))
    return table_file(cell)


def check_writable(folder: Path, what: str = "results") -> None:
    """Raise StorageError unless files can be made in `folder`; creates the directory."""
    with storage(folder, what):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass


# Reading -------------------------------------------------------------------------------------------------------------


def load_results(path: str | Path, table: str = "windows") -> pd.DataFrame:
    """All rows of a table under a results directory (or of one file) as one tidy DataFrame.

    A folder below it that holds a file `.apart` (as results/baseline does) is read only where it is named itself.
    Columns: `schema.columns(table)`; one that a file of before lacks is null in its rows. A cell under several names of
    its model is one under each (`named_apart`), under one name in several places it is one. Files that are no table of
    ours are named in a warning and left out, columns that only a newer version knows are named and left out.
    Raises UserError where nothing is found, StorageError where the system does not let a file be read.
    """
    if table not in schema.table_names():
        raise unknown("table", table, schema.table_names())
    rows = load_files(tables_under(path, table), table)
    if rows is None:
        raise UserError(f"no finished cells (*.{table}.parquet) under {str(path)!r}{sets_apart(Path(path))}.")
    return rows


def load_files(files: Sequence[Path], table: str = "windows") -> pd.DataFrame | None:
    """The rows of these files as `load_results`; None where none of them is a table. Raises StorageError."""
    read = []
    for found in parquet.each(files, partial(_read, table=table), "reading results"):
        if isinstance(found, str):
            log.warning("%s; left out", found)
        else:
            read.append(found)
    if not read:
        return None
    _say_newer([footer for footer, _ in read], table)
    rows = named_apart(pa.concat_tables([content for _, content in read]).to_pandas())
    return rows.drop_duplicates(schema.keys(table)).reset_index(drop=True)


def named_apart(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a cell under several names of its model as those of several cells: `cell_id` with the name behind it."""
    if "model" not in rows:
        return rows
    named = rows[["cell_id", "model"]].drop_duplicates()
    several = set(named["cell_id"][named["cell_id"].duplicated()])
    own = rows["cell_id"].isin(several)
    return rows.assign(cell_id=rows["cell_id"].where(~own, rows["cell_id"] + ":" + rows["model"])) if several else rows


def _read(file: Path, table: str) -> tuple[Footer, pa.Table] | str:
    """What `parquet.read` gives, or why it does not, in words."""
    try:
        return (_checked.take(file) if table == "windows" else None) or parquet.read(file, table)
    except NotATable as error:
        return f"{file} is not a results file ({error})"
    except FileNotFoundError:  # removed since it was found
        return f"{file} is gone"


def _say_newer(footers: list[Footer], table: str) -> None:
    newer = [footer for footer in footers if footer.version > schema.version()]
    if newer:
        known = schema.arrow(table).names
        others = sorted({name for footer in newer for name in footer.schema.names} - set(known))
        left_out = f"; left out: {', '.join(others)}" if others else ""
        log.warning(
            "%d of %d files are of a newer harness (schema version %d, this one knows %d)%s",
            len(newer), len(footers), max(footer.version for footer in newer), schema.version(), left_out,
        )  # fmt: skip


def provenance(file: str | Path) -> dict[str, Any]:
    """What a results file records of its making: configuration, versions, device, cost. Raises UserError."""
    try:
        return parquet.footer(Path(file)).provenance
    except (FileNotFoundError, NotATable) as error:
        raise UserError(f"{str(file)!r} is not a results file ({error}).") from error


def cells_of(file: Path) -> list[str]:
    """The cells that a results file holds, by their `cell_id`: its own, or of a file that others joined all in it."""
    own = parquet.footer(file).metadata.get(b"cell_id")
    return sorted(set(load_results(file)["cell_id"])) if own is None else [own.decode()]
