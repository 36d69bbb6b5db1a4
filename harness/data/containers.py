"""Texts out of one file, whatever holds them: the same bytes are the same text in every container.

A file is opened once and read as what its endings say, by Python's own readers and pyarrow. Line ends stay as they are;
a byte order mark, of the file or in front of a text, is left out, with a word.
"""

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
import sys
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from harness.data.local import Format, Packing, container
from harness.errors import UserError, first_line
from harness.storage import hashed

log = logging.getLogger(__name__)

BOM = "\ufeff"
ROWS = 64  # of a parquet file, at a time


class RawText(NamedTuple):
    """One untokenized document."""

    name: str
    text: str


def read(file: Path, content_hash: str, column: str) -> Generator[RawText, None, None]:
    """The texts of a file; an empty one has none.

    Raises UserError where it cannot be read as what its name says, where `column` is missing or holds anything but
    text, and where its content is not what hashes to `content_hash`.
    """
    what, kind = repr(str(file)), container(file)
    try:
        with hashed.reading(file, content_hash) as stream:
            if not stream.peek(1):
                return
            texts = _READERS[kind.format](_unpacked(stream, kind.packing), column, what)
            yield from _named(kind.stem, checked(texts, column, what))
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{what} is not UTF-8 text: byte {error.start} cannot be decoded.") from error
    except (OSError, EOFError, ValueError, RuntimeError, csv.Error, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{what} cannot be read: {first_line(error)}") from error


def _named(stem: str, texts: Iterator[str]) -> Iterator[RawText]:
    """A text that is alone in its file has the file's name, others have their number behind it."""
    first, second = next(texts, None), next(texts, None)
    if first is None:
        return
    if second is None:
        yield RawText(stem, first)
        return
    yield RawText(f"{stem}-0", first)
    yield RawText(f"{stem}-1", second)
    for index, text in enumerate(texts, start=2):
        yield RawText(f"{stem}-{index}", text)


def checked(values: Iterable[object], column: str, what: str) -> Iterator[str]:
    """What stands in a column, each of it text that UTF-8 can express, without a byte order mark in front."""
    is_marked = False
    for index, text in enumerate(values):
        if not isinstance(text, str):
            given = "nothing" if text is None else type(text).__name__
            raise UserError(f"data.column {column!r} of {what} must hold text, row {index} holds {given}.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{what} is not UTF-8 text: row {index} holds half a character ({error.reason}).") from None
        if text.startswith(BOM) and not is_marked:
            is_marked = True
            log.warning("a text of %s begins with a byte order mark, which is left out", what)
        yield text.removeprefix(BOM)


def _unpacked(stream: io.BufferedReader, packing: Packing | None) -> IO[bytes]:
    if packing == "gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=stream))
    if packing == "bz2":
        return bz2.BZ2File(stream)
    if packing == "xz":
        return lzma.LZMAFile(stream)
    if packing == "zst":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(stream, "zstd"))
    return stream


def _text(stream: IO[bytes], column: str, what: str) -> Iterator[object]:
    """A whole file is a document."""
    text = stream.read().decode()
    if text:
        yield text


def _lines(stream: IO[bytes], what: str) -> Iterator[str]:
    """Lines with their ends, which are line feeds and nothing else; the byte order mark of the file left out."""
    for number, line in enumerate(stream, start=1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            place = f"byte {error.start} of line {number}"
            raise UserError(f"{what} is not UTF-8 text: {place} cannot be decoded.") from error
        if number == 1 and text.startswith(BOM):
            log.warning("%s begins with a byte order mark, which is left out", what)
            text = text.removeprefix(BOM)
        yield text


def _jsonl(stream: IO[bytes], column: str, what: str) -> Iterator[object]:
    """A line is a document; empty lines are none."""
    return _of_objects(_objects(_lines(stream, what), what), column, what)


def _objects(lines: Iterator[str], what: str) -> Iterator[object]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UserError(f"{what} cannot be read: line {number} is not JSON: {first_line(error)}") from error


def _json(stream: IO[bytes], column: str, what: str) -> Iterator[object]:
    """A list of objects, one object, or lines as in jsonl."""
    content = "".join(_lines(stream, what))
    if not content.strip():
        return iter(())
    try:
        found = json.loads(content)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise
        return _of_objects(_objects(iter(content.split("\n")), what), column, what)
    return _of_objects(iter(found if isinstance(found, list) else [found]), column, what)


def _of_objects(objects: Iterator[object], column: str, what: str) -> Iterator[object]:
    for index, one in enumerate(objects):
        if not isinstance(one, dict):
            raise UserError(f"{what} must hold JSON objects, row {index} holds {type(one).__name__}.")
        if index == 0:
            check_column(list(one), column, what)
        yield one.get(column)


def _table(stream: IO[bytes], column: str, what: str, *, delimiter: str) -> Iterator[object]:
    """A row is a document, the first one names the columns; quoted as RFC 4180 has it."""
    csv.field_size_limit(sys.maxsize)
    rows = csv.reader(_lines(stream, what), delimiter=delimiter, strict=True)
    names = next(rows, None)
    if names is None:
        return
    check_column(names, column, what)
    place = names.index(column)
    for row in rows:
        if row and len(row) != len(names):
            raise UserError(
                f"{what} cannot be read: line {rows.line_num} ends a row of {len(row)} fields, the first has "
                f"{len(names)}; a field that holds {delimiter!r} must be quoted."
            )
        if row:
            yield row[place]


def _parquet(stream: IO[bytes], column: str, what: str) -> Iterator[object]:
    """A row is a document. Parquet is read from its end, so the file is held in memory as it is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = pq.ParquetFile(pa.BufferReader(stream.read()))
    check_column(content.schema_arrow.names, column, what)
    for batch in content.iter_batches(ROWS, columns=[column]):
        yield from batch.column(column).to_pylist()


def check_column(names: list[str], column: str, what: str) -> None:
    """Raise UserError unless there is one column of this name."""
    if column not in names:
        raise UserError(f"data.column {column!r} is not in {what}: it has {', '.join(map(repr, names))}.")
    if names.count(column) > 1:
        raise UserError(f"data.column {column!r} is in {what} {names.count(column)} times; keep one of them.")


_READERS: dict[Format, Callable[[IO[bytes], str, str], Iterator[object]]] = {
    "text": _text,
    "jsonl": _jsonl,
    "json": _json,
    "csv": partial(_table, delimiter=","),
    "tsv": partial(_table, delimiter="\t"),
    "parquet": _parquet,
}
