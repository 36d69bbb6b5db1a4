"""Texts out of one file, whatever holds them: the same bytes are the same text in every container.

A file is opened once and read as what its endings say, by Python's own readers and pyarrow. Line ends stay as they are;
a byte order mark, of the file or in front of a text, is left out, with a word.
"""

import csv
import json
import logging
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from harness.data.local import Format, container
from harness.data.raw import BOM, LONG, Parts, RawText, understood
from harness.data.unpacking import unpacked
from harness.errors import UserError, first_line
from harness.storage import hashed

log = logging.getLogger(__name__)

ROWS = 64  # of a parquet file, at a time


class Columns(NamedTuple):
    """The columns that a document is read from."""

    text: str
    target: str | None = None

    @property
    def names(self) -> list[str]:
        """Those that there are."""
        return [self.text] if self.target is None else [self.text, self.target]

    @property
    def keys(self) -> dict[str, str]:
        """The key of the configuration that names each."""
        return dict(zip(self.names, ("data.column", "data.target_column"), strict=False))

    def check(self, found: list[str], what: str) -> None:
        """Raise UserError unless each is there once."""
        for name, key in self.keys.items():
            if name not in found:
                raise UserError(f"{key} {name!r} is not in {what}: it has {', '.join(map(repr, found))}.")
            if found.count(name) > 1:
                raise UserError(f"{key} {name!r} is in {what} {found.count(name)} times; keep one of them.")


Row = tuple[object, ...]  # what stands in the columns


def read(
    file: Path, content_hash: str, column: str, target_column: str | None = None
) -> Generator[RawText, None, None]:
    """The texts of a file; an empty one has none.

    Raises UserError where it cannot be read as what its name says, where a column is missing or holds anything but
    text, and where its content is not what hashes to `content_hash`.
    """
    what, kind, column_names = repr(str(file)), container(file), Columns(column, target_column)
    if target_column is not None and kind.format == "text":
        raise UserError(f"data.target_column needs files with columns (jsonl, parquet, ...), got {what}.")
    with understood(what), hashed.reading(file, content_hash) as stream:
        if not stream.peek(1):
            return
        rows = _READERS[kind.format](unpacked(stream, kind.packing), column_names, what)
        yield from _named(kind.stem, checked(rows, column_names, what))


def _named(stem: str, rows: Iterator[tuple[Any, ...]]) -> Iterator[RawText]:
    """A text that is alone in its file has the file's name, others have their number behind it."""
    first, second = next(rows, None), next(rows, None)
    if first is None:
        return
    if second is None:
        yield RawText(stem, *first)
        return
    yield RawText(f"{stem}-0", *first)
    yield RawText(f"{stem}-1", *second)
    for index, values in enumerate(rows, start=2):
        yield RawText(f"{stem}-{index}", *values)


def checked(rows: Iterable[Row], columns: Columns, what: str) -> Iterator[tuple[Any, ...]]:
    """What stands in the columns, each of it text that UTF-8 can express, without a byte order mark in front.

    A target is not empty.
    """
    is_marked = False
    for index, row in enumerate(rows):
        if isinstance(row[0], Parts):
            yield row
            continue
        texts = [_text_of(value, columns.keys[name], name, what, index) for name, value in _of(columns, row)]
        if len(texts) > 1 and not texts[1]:
            raise UserError(f"data.target_column {columns.target!r} of {what} is empty in row {index}.")
        if texts[0].startswith(BOM) and not is_marked:
            is_marked = True
            log.warning("a text of %s begins with a byte order mark, which is left out", what)
        yield (texts[0].removeprefix(BOM), *texts[1:])


def _of(columns: Columns, row: Row) -> Iterator[tuple[str, object]]:
    return zip(columns.names, row, strict=True)


def _text_of(value: object, key: str, column: str, what: str, index: int) -> str:
    if not isinstance(value, str):
        given = "nothing" if value is None else "dict" if isinstance(value, dict) else type(value).__name__
        raise UserError(f"{key} {column!r} of {what} must hold text, row {index} holds {given}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{what} is not UTF-8 text: row {index} holds half a character ({error.reason}).") from None
    return value


def _text(stream: IO[bytes], columns: Columns, what: str) -> Iterator[Row]:
    """A whole file is a document; a long one is read while it is asked for."""
    begin = stream.read(LONG)
    if len(begin) == LONG:
        yield (Parts(begin, stream, what),)
    elif begin:
        yield (begin.decode(),)


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


class _Object(dict[str, object]):
    """A JSON object that knows all names in it; as a dict it holds what was written last under each."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.repeated = [] if len(self) == len(pairs) else [name for name, _ in pairs]


def _of_json(content: str) -> object:
    return json.loads(content, object_pairs_hook=_Object)


def _jsonl(stream: IO[bytes], columns: Columns, what: str) -> Iterator[Row]:
    """A line is a document; empty lines are none."""
    return _of_objects(_objects(_lines(stream, what), what), columns, what)


def _objects(lines: Iterator[str], what: str) -> Iterator[object]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _of_json(line)
            except ValueError as error:
                raise UserError(f"{what} cannot be read: line {number} is not JSON: {first_line(error)}") from error


def _json(stream: IO[bytes], columns: Columns, what: str) -> Iterator[Row]:
    """A list of objects, one object, or lines as in jsonl."""
    content = "".join(_lines(stream, what))
    if not content.strip():
        return iter(())
    try:
        found = _of_json(content)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise
        return _of_objects(_objects(iter(content.split("\n")), what), columns, what)
    return _of_objects(iter(found if isinstance(found, list) else [found]), columns, what)


def _of_objects(objects: Iterator[object], columns: Columns, what: str) -> Iterator[Row]:
    for index, one in enumerate(objects):
        if not isinstance(one, _Object):
            raise UserError(f"{what} must hold JSON objects, row {index} holds {type(one).__name__}.")
        if index == 0 or one.repeated:
            columns.check(one.repeated or list(one), what if index == 0 else f"row {index} of {what}")
        yield tuple(one.get(name) for name in columns.names)


def _table(stream: IO[bytes], columns: Columns, what: str, *, delimiter: str) -> Iterator[Row]:
    """A row is a document, the first one names the columns; quoted as RFC 4180 has it."""
    csv.field_size_limit(sys.maxsize)
    rows = csv.reader(_lines(stream, what), delimiter=delimiter, strict=True)
    names = next(rows, None)
    if names is None:
        return
    columns.check(names, what)
    places = [names.index(name) for name in columns.names]
    for row in rows:
        if row and len(row) != len(names):
            raise UserError(
                f"{what} cannot be read: line {rows.line_num} ends a row of {len(row)} fields, the first has "
                f"{len(names)}; a field that holds {delimiter!r} must be quoted."
            )
        if row:
            yield tuple(row[place] for place in places)


def _parquet(stream: IO[bytes], columns: Columns, what: str) -> Iterator[Row]:
    """A row is a document. Parquet is read from its end, so the file is held in memory as it is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = pq.ParquetFile(pa.BufferReader(stream.read()))
    columns.check(content.schema_arrow.names, what)
    for batch in content.iter_batches(ROWS, columns=columns.names):
        yield from zip(*(batch.column(name).to_pylist() for name in columns.names), strict=True)


_READERS: dict[Format, Callable[[IO[bytes], Columns, str], Iterator[Row]]] = {
    "text": _text,
    "jsonl": _jsonl,
    "json": _json,
    "csv": partial(_table, delimiter=","),
    "tsv": partial(_table, delimiter="\t"),
    "parquet": _parquet,
}
