"""Which files a path names: it is a path, never a pattern, and the types of files are a closed list."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from harness.errors import UserError

Format = Literal["text", "jsonl", "json", "csv", "tsv", "parquet"]
Packing = Literal["gz", "bz2", "xz", "zst"]

FORMATS: dict[str, Format] = {
    ".txt": "text", ".jsonl": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip
PACKINGS: dict[str, Packing] = {".gz": "gz", ".bz2": "bz2", ".xz": "xz", ".zst": "zst"}
KNOWN = f"{', '.join(FORMATS)}, each also packed as {', '.join(PACKINGS)}"
ALIKE: dict[Format, str] = {"jsonl": "json", "tsv": "csv"}  # may lie in one folder
SYSTEM = ("__macosx", "thumbs.db", "desktop.ini")  # what operating systems leave, beside hidden files


class Container(NamedTuple):
    """What a file is, as its name says."""

    format: Format
    packing: Packing | None
    stem: str  # its name without these endings


def container(file: Path) -> Container:
    """What a file is, by its endings in whichever letter case. Raises UserError for any other."""
    unpacked, packing = file, None
    if file.suffix.lower() in PACKINGS:
        unpacked, packing = Path(file.stem), PACKINGS[file.suffix.lower()]
    if unpacked.suffix.lower() not in FORMATS:
        raise UserError(f"data.path: {str(file)!r} is of no known type, which are {KNOWN}.")
    return Container(FORMATS[unpacked.suffix.lower()], packing, unpacked.stem)


def files(given: str) -> list[Path]:
    """The file that a path names, or all files below a folder, ordered by their paths; hidden ones are left out.

    Raises UserError for a path that leads to nothing readable, and for a folder that is not of one kind of files.
    """
    try:
        path = Path(given).expanduser()
        found = _status(path)
    except (FileNotFoundError, NotADirectoryError, RuntimeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"data.path {given!r} does not exist.") from None
    if not stat.S_ISDIR(found.st_mode):
        container(path)
        if not found.st_size:
            raise UserError(f"data.path: {str(path)!r} is empty.")
        return [path]
    listed = sorted(_walk(path, {(found.st_dev, found.st_ino)}))
    _check_one_kind(path, listed)
    return listed


def _walk(folder: Path, above: set[tuple[int, int]]) -> Iterator[Path]:
    """Files below a folder; `above`: what is known by device and inode of the folders on the way to it."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise _unreadable(folder, error) from None
    for name in names:
        if name.startswith(".") or name.lower() in SYSTEM:
            continue
        path = folder / name
        try:
            found = _status(path)
        except OSError as error:
            raise _unreadable(path, error) from None
        here = (found.st_dev, found.st_ino)
        if here in above:
            raise UserError(f"data.path: {str(path)!r} is a link to a folder that it lies in.")
        if stat.S_ISDIR(found.st_mode):
            yield from _walk(path, above | {here})
        else:
            yield path


def _status(path: Path) -> os.stat_result:
    """Of a file or folder, links followed. Raises UserError; FileNotFoundError, NotADirectoryError where nothing is."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise _unreadable(path, error) from None
    if not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
        raise UserError(f"data.path: {str(path)!r} is neither a file nor a folder but a pipe, socket or device.")
    return found


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"data.path: {str(path)!r} cannot be read: {error.strerror}.")


def _check_one_kind(folder: Path, listed: list[Path]) -> None:
    """Raise UserError for files of several kinds, of none, or for one file that is there packed and unpacked."""
    containers = [container(file) for file in listed]
    kinds = {ALIKE.get(c.format, c.format) for c in containers}
    if len(kinds) != 1:
        found = f"a mixture of {', '.join(sorted(kinds))}" if kinds else "none"
        raise UserError(f"data.path {str(folder)!r} must hold files of one kind ({KNOWN}), found {found}.")
    seen: dict[tuple[Path, str, Format], Path] = {}
    for file, one in zip(listed, containers, strict=True):
        other = seen.setdefault((file.parent, one.stem, one.format), file)
        if other is not file:
            raise UserError(f"data.path: {str(other)!r} and {str(file)!r} would be one text twice; keep one of them.")
