"""One parquet file of a table: opened, understood from its footer, read whole, written.

Two kinds of trouble are kept apart: what is no table of ours, whatever its name says (`NotATable`), and what the system
does not let us read (StorageError): nothing is known of that, and nothing must be done to it.
"""

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import first_line
from harness.logs import progress
from harness.results import fitting
from harness.storage import cache
from harness.storage.files import StorageError, write_atomically

T = TypeVar("T")
KINDS = {
    stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip


class NotATable(ValueError):
    """What a file is instead of the table that its name says, in one line."""


class Footer(NamedTuple):
    """What a file says of itself without its rows."""

    schema: pa.Schema
    num_rows: int

    @property
    def metadata(self) -> Mapping[bytes, bytes]:
        """What its writer noted."""
        return self.schema.metadata or {}

    @property
    def version(self) -> int:
        """Of the schema that it was written with."""
        return fitting.file_version(self.metadata)

    @property
    def provenance(self) -> dict[str, Any]:
        """How it was made."""
        return dict(json.loads(self.metadata.get(b"provenance", b"{}")))


def other_kind(path: Path) -> str | None:
    """What lies there if it is no file: "a directory", "a FIFO", ... Raises FileNotFoundError, StorageError."""
    with reading(path):
        return KINDS.get(stat.S_IFMT(path.stat().st_mode))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What goes wrong in the body as NotATable or StorageError; a FileNotFoundError as it is."""
    try:
        yield
    except (FileNotFoundError, NotATable):
        raise
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the others are pyarrow's, of what it has read
            raise StorageError(f"results cannot be read from {str(path)!r}: {error.strerror or error}") from error
        raise NotATable(first_line(error)) from error


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A file open for reading, checksums compared. Raises FileNotFoundError, NotATable, StorageError."""
    kind = other_kind(path)
    if kind is not None:
        raise NotATable(f"it is {kind}")
    with reading(path), path.open("rb") as stream:
        yield pq.ParquetFile(stream, page_checksum_verification=True)


def state(path: Path) -> tuple[int, ...]:
    """What differs after a change of a file. Raises FileNotFoundError, StorageError."""
    with reading(path):
        return tuple(cache.state(path.stat()))


def each(paths: Sequence[Path], work: Callable[[Path], T], doing: str) -> list[T]:
    """The work of each file, in their order, several at a time: unpacking holds no lock. Raises as `work` does."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(progress(pool.map(work, paths), doing, "file", total=len(paths)))


def footer(path: Path) -> Footer:
    """What the file says of itself; reads none of its rows. Raises as `opened` does."""
    with opened(path) as file:
        return _footer(file)


def _footer(file: pq.ParquetFile) -> Footer:
    return Footer(file.schema_arrow, file.metadata.num_rows)


def check(path: Path) -> None:
    """Read all of a file once, part by part, so that a byte gone wrong is found. Raises as `opened` does."""
    with opened(path) as file:
        for group in range(file.num_row_groups):
            file.read_row_group(group, use_threads=False)


def read(path: Path, table: str) -> tuple[Footer, pa.Table]:
    """The rows of a table in the columns of today, and what the file says of itself. Raises as `opened` does."""
    with opened(path) as file:
        found = _footer(file)
        if fault := fitting.fault(table, found.schema, found.num_rows, exact=False):
            raise NotATable(fault)
        provenance = {}
        with suppress(ValueError):  # another program's
            provenance = found.provenance
        return found, fitting.fitted(table, file.read(use_threads=False), provenance)


def fill(content: pa.Table, stream: IO[bytes]) -> None:
    """Write a table into an open file."""
    pq.write_table(content, stream, compression="zstd", write_page_checksum=True)


def write_frame(file: Path, frame: pd.DataFrame) -> None:
    """Write a table that is not of a cell, atomically. Raises StorageError."""
    write_atomically(file, partial(fill, pa.Table.from_pandas(frame, preserve_index=False)))
