"""Files that others may read at any moment: whole or not there, and a full or read-only disk reported in one line."""

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from harness.errors import UserError


class StorageError(UserError):
    """Results cannot be written or read: disk full, read-only, no permission. Nothing that was there is harmed."""


@contextmanager
def storage(folder: Path, what: str = "results") -> Iterator[None]:
    """Report an OSError of the body as a StorageError that names the folder."""
    try:
        yield
    except OSError as error:
        full = " (free some space; the same command goes on from here)" if error.errno == errno.ENOSPC else ""
        reason = error.strerror or str(error)
        raise StorageError(f"{what} cannot be written to {str(folder)!r}: {reason}{full}") from error


def write_atomically(
    file: Path, fill: Callable[[IO[bytes]], object], *, sync: bool = True, what: str = "results"
) -> None:
    """Write a file under a hidden temporary name beside it, sync, rename: readers see all of it or nothing.

    A writer that is killed leaves `.<name>.*` behind; see `remove_temporary`. Raises StorageError, which says `what`
    could not be written, also where a device, a FIFO or a directory has that name.
    """
    with storage(file.parent, what):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            check_regular(file)  # a rename would put a file in place of a device, /dev/null for everybody
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as stream:
            temporary = Path(stream.name)
            try:
                fill(stream)
                stream.flush()
                if sync:
                    os.fsync(stream.fileno())
                os.chmod(temporary, 0o666 & ~_umask())  # what open() would give; the temporary is private
                os.replace(temporary, file)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        if sync:
            _sync_directory(file.parent)


def write_bytes(file: Path, content: bytes, *, sync: bool = True, what: str = "results") -> None:
    """Write a whole file atomically; see `write_atomically`."""
    write_atomically(file, lambda stream: stream.write(content), sync=sync, what=what)


def write_text(file: Path, text: str, *, sync: bool = True, what: str = "results") -> None:
    """Write a whole file as UTF-8, line ends as given, atomically; see `write_atomically`."""
    write_bytes(file, text.encode(), sync=sync, what=what)


def check_regular(file: Path) -> None:
    """Raise OSError for what is no file: a FIFO, which would be waited for, a device without end, a directory."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, f"{file.name} is no regular file", str(file))


def remove_temporary(folder: Path, name: str) -> None:
    """Remove what killed writers of the files `<name>...` left in a folder."""
    for leftover in folder.glob(f".{name}.*"):
        leftover.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_directory(folder: Path) -> None:
    """Make a rename survive a power failure; file systems that cannot sync a directory are left to themselves."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
