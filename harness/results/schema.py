"""The tables of results and their columns, each declared once.

A new column is one entry in COLUMNS with `since` one above `version()`; a new table is one entry in TABLES, and one for
each column that no other table has. Files of before lack them: a column is null there, a table has no rows, and the
cells stay finished.

Rows, parquet files, the columns of a cell, what statistics groups by and the list in docs/querying.md follow from here.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter
from typing import Any, NamedTuple

import pyarrow as pa

from harness.data.documents import Document
from harness.data.scores import Scores
from harness.results.units import divergence_bins, position_bins, scored_windows
from harness.storage.places import folders_above


class Table(NamedTuple):
    """A file of each cell, `<cell>.<name>.parquet`."""

    name: str
    a_row: str  # what one is
    units: Callable[[Scores, Document, int], Sequence[Any]]  # (losses, document, ctx) -> what rows are made from
    also: tuple[str, ...] = ()  # columns of other tables that it has as well, by name
    only_with: str | None = None  # what of a configuration asks for it; None: every cell has it
    since: int = 1  # version of the schema


class Column(NamedTuple):
    """A column of one or more tables, by which version of the schema it came."""

    name: str
    type: pa.DataType
    tables: tuple[str, ...]  # by name; EVERY: all that there are
    meaning: str  # with its unit
    value: Callable[[Any], Any] | None = None  # of a cell's `Facts`, or of a table's units; None: their attribute
    of_cell: bool = False  # the same in all rows of a cell
    is_key: bool = False  # with the others of its table, which row it is
    since: int = 1
    recorded: Callable[[Mapping[str, Any]], Any] | None = None  # from the provenance of files that lack it

    def of(self, source: object) -> Any:
        """Its value for what a row is made from; for a row of tokens each, an array (num_scored,)."""
        return (self.value or attrgetter(self.name))(source)


TABLES: list[Table] = [
    Table("kl", "a document and bin of positions beside a base", divergence_bins, only_with="has_base", since=6),
    Table("positions", "a document and bin of positions in the window", position_bins),
    Table("tokens", "a scored token", scored_windows, only_with="keeps_tokens"),
    Table("windows", "a window", scored_windows),
]


def data_params(spec: Mapping[str, Any]) -> str:
    """A data set's settings beside its name and its place, JSON; those that are not set are left out."""
    return json.dumps({k: v for k, v in sorted(spec.items()) if k not in ("name", "path") and v is not None})


def folder_of(spec: Mapping[str, Any]) -> str | None:
    """The last folders of an absolute path, of a model or data set whose place a file has kept."""
    path = spec["path"]
    return folders_above(path) if path and path.startswith("/") else None


def of_needle(name: str) -> Callable[[Any], Any]:
    """A fact of the needle that a document holds; null where it holds none."""
    return lambda unit: None if unit.document.needle is None else getattr(unit.document.needle, name)


TEXT, INTEGER, REAL = pa.string(), pa.int64(), pa.float64()
WINDOWS, TOKENS, KL = ("windows",), ("tokens",), ("kl",)
POSITIONS = ("positions", "kl")
SUMS = ("windows", "positions", "kl")
EVERY: tuple[str, ...] = ()

COLUMNS: list[Column] = [
    # Of the cell
    Column("cell_id", TEXT, EVERY, "hash of what determines the numbers", of_cell=True, is_key=True),
    Column("experiment", TEXT, SUMS, "name of the run", lambda c: c.config.experiment, of_cell=True),
    Column("model", TEXT, SUMS, "its name", lambda c: c.config.model.name, of_cell=True),
    Column(
        "model_source", TEXT, SUMS, "folder, file, hub id or package of its weights, and its revision",
        lambda c: c.config.model.source, of_cell=True, since=3,
    ),
    Column(
        "model_folder", TEXT, SUMS, "folders that it lies in, the last four; null: it is of a hub or package",
        lambda c: c.config.model.folder, of_cell=True, since=7,
        recorded=lambda provenance: folder_of(provenance["config"]["model"]),
    ),
    Column(
        "model_fingerprint", TEXT, SUMS, "hash of its files", lambda c: c.identity.model_fingerprint,
        of_cell=True, since=3,
    ),
    Column("model_revision", TEXT, SUMS, "of a hub", lambda c: c.identity.model_revision, of_cell=True),
    Column("method", TEXT, SUMS, "its name", lambda c: c.config.method.name, of_cell=True),
    Column("method_params", TEXT, SUMS, "the method's parameters, resolved, JSON", of_cell=True),
    Column("factor", REAL, SUMS, "resolved; null: the method has none", lambda c: c.method.factor, of_cell=True),
    Column("original_max_position_embeddings", INTEGER, SUMS, "trained length, tokens", of_cell=True),
    Column("ctx", INTEGER, SUMS, "length of a window, tokens", lambda c: c.config.ctx, of_cell=True),
    Column("protocol", TEXT, SUMS, "its name", lambda c: c.protocol.name, of_cell=True),
    Column("protocol_params", TEXT, SUMS, "the protocol's parameters, resolved, JSON", of_cell=True),
    Column("stride", INTEGER, SUMS, "tokens; null: the protocol has none", of_cell=True),
    Column("dataset", TEXT, SUMS, "its name", lambda c: c.config.data.name, of_cell=True),
    Column(
        "dataset_source", TEXT, SUMS, "file, directory, hub id or package of its texts",
        lambda c: c.config.data.origin, of_cell=True, since=2,
    ),
    Column(
        "dataset_folder", TEXT, SUMS, "folders that it lies in, the last four; null: it is of a hub or package",
        lambda c: c.config.data.folder, of_cell=True, since=7,
        recorded=lambda provenance: folder_of(provenance["config"]["data"]),
    ),
    Column(
        "dataset_params", TEXT, SUMS, "which part of them: number of documents, lengths, ..., JSON",
        lambda c: data_params(asdict(c.config.data)), of_cell=True, since=4,
        recorded=lambda provenance: data_params(provenance["config"]["data"]),
    ),
    Column("shorter", TEXT, SUMS, "whole: documents below ctx count; null: none may be", of_cell=True, since=2),
    Column("dataset_fingerprint", TEXT, SUMS, "hash", lambda c: c.identity.dataset_fingerprint, of_cell=True),
    Column("dtype", TEXT, SUMS, "precision of the weights", lambda c: c.identity.dtype, of_cell=True),
    Column("identity_version", INTEGER, SUMS, "of what `cell_id` hashes; null: 1", of_cell=True, since=2),
    Column(
        "base", TEXT, SUMS, "what KL is taken to: model, method, what is set of it; empty: nothing",
        of_cell=True, since=6,
    ),
    Column(
        "base_cell_id", TEXT, SUMS, "the cell of its losses alone; empty: there is no base",
        of_cell=True, since=6,
    ),
    # Of the document
    Column("document", TEXT, EVERY, "its name", lambda u: u.document.name),
    Column("document_index", INTEGER, EVERY, "its place in the data set", is_key=True),
    Column("depth", REAL, WINDOWS, "of its needle: share of the haystack before it", of_needle("depth"), since=5),
    Column("repeat", INTEGER, WINDOWS, "of its needle: which haystack, fact and numbers", of_needle("repeat"), since=5),
    Column("right", pa.bool_(), WINDOWS, "its needle holds the number asked for", of_needle("right"), since=5),
    # Of the window
    Column("window", INTEGER, ("windows", "tokens"), "which of the document's", is_key=True),
    Column("begin", INTEGER, WINDOWS, "first token that the model sees", lambda u: u.span.begin),
    Column("end", INTEGER, WINDOWS, "one behind the last", lambda u: u.span.end),
    Column("score_from", INTEGER, WINDOWS, "first token that is scored", lambda u: u.span.score_from),
    Column("bos", pa.bool_(), WINDOWS, "a BOS token stands before it", lambda u: u.span.bos),
    # Of the bin of positions
    Column("position_begin", INTEGER, POSITIONS, "first position, tokens that precede, BOS included", is_key=True),
    Column("position_end", INTEGER, POSITIONS, "one behind the last"),
    # Sums
    Column("num_scored", INTEGER, SUMS, "tokens with a loss"),
    Column("nll_sum", REAL, SUMS, "their losses, nats"),
    Column("weight", REAL, SUMS, "windows that a sampled one stands for", is_key=True),
    Column("num_bytes", INTEGER, WINDOWS, "bytes of text that the scored tokens cover"),
    Column("num_words", INTEGER, WINDOWS, "words that begin in them, split at white space as in lm-eval", since=2),
    Column("num_top1", INTEGER, WINDOWS, "scored tokens that were the likeliest of the vocabulary", since=3),
    Column("base_nll_sum", REAL, KL, "losses of the same tokens under the base, nats", since=6),
    Column("kl_sum", REAL, KL, "KL(base || this) of their distributions, nats", since=6),
    Column("num_same_top", INTEGER, KL, "tokens at which one token is the likeliest of both", since=6),
    Column("delta_p_sum", REAL, KL, "probabilities of the tokens less those under the base", since=6),
    Column("delta_p_squares", REAL, KL, "squares of these differences", since=6),
    # Of the token
    Column("token", INTEGER, TOKENS, "its place in the document", lambda u: u.tokens, is_key=True),
    Column("nll", pa.float32(), TOKENS, "its loss, nats"),
    Column("top1", pa.bool_(), TOKENS, "it was the likeliest of the vocabulary", since=3),
    Column("token_id", INTEGER, TOKENS, "its number in the vocabulary", lambda u: u.token_ids, since=3),
    Column("previous_id", INTEGER, TOKENS, "that of the token before it; -1: none", lambda u: u.previous_ids, since=3),
    Column("byte_begin", INTEGER, TOKENS, "bytes of the document's text before it", lambda u: u.byte_begins, since=3),
    Column("byte_end", INTEGER, TOKENS, "bytes of the document's text to its end", lambda u: u.byte_ends, since=3),
    Column("base_nll", pa.float32(), TOKENS, "its loss under the base, nats; null: there is no base", since=6),
    Column("kl", pa.float32(), TOKENS, "KL(base || this) of the distributions before it, nats", since=6),
    Column("same_top", pa.bool_(), TOKENS, "one token was the likeliest of both", since=6),
    Column("delta_p", pa.float32(), TOKENS, "its probability less that under the base", since=6),
]  # fmt: skip


def version() -> int:
    """Of the schema: files of this version have every column."""
    return max([table.since for table in TABLES] + [column.since for column in COLUMNS])


def named(table: str) -> Table:
    """The table of a name; a KeyError for an unknown one is ours."""
    return {one.name: one for one in TABLES}[table]


def table_names() -> list[str]:
    """Names of all tables."""
    return [table.name for table in TABLES]


def writing_order(tables: Iterable[str]) -> list[str]:
    """Tables of a cell in the order in which they are written: the windows last."""
    return sorted(tables, key=lambda name: (name == "windows", name))


def columns(table: str) -> list[Column]:
    """The columns of a table, in their order."""
    also = named(table).also
    return [c for c in COLUMNS if c.tables == EVERY or table in c.tables or c.name in also]


def cell_columns() -> list[str]:
    """Names of the columns that are the same in all rows of a cell and identify it."""
    return [column.name for column in COLUMNS if column.of_cell]


def cell_values(facts: object) -> dict[str, Any]:
    """Those columns of one cell, from what is known of it (`harness.cells.cell.Facts`)."""
    return {column.name: column.of(facts) for column in COLUMNS if column.of_cell}


def keys(table: str) -> list[str]:
    """Names of the columns that together say which row it is."""
    return [column.name for column in columns(table) if column.is_key]


def arrow(table: str) -> pa.Schema:
    """The parquet schema of a table."""
    return pa.schema([(column.name, column.type) for column in columns(table)])
