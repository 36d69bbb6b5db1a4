"""Hashes of files and the on-disk cache of what is derived from them; nothing in it is ever a result."""

import errno
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from harness.storage.files import StorageError, check_regular, write_atomically

SETTLED_NS = 2_000_000_000  # a file that changed later than this may change again within one tick of its clock
SHA256 = re.compile(rb"[0-9a-f]{64}")


def root() -> Path:
    """The cache directory: $HARNESS_CACHE, else $XDG_CACHE_HOME/longctx-harness, else ~/.cache/longctx-harness."""
    if given := os.environ.get("HARNESS_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longctx-harness"


def path(kind: str, key: str, suffix: str) -> Path:
    """Where the entry `key` of a `kind` lies."""
    return root() / kind / f"{key}{suffix}"


def canonical(value: object) -> str:
    """A JSON value as text, the same text for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object, length: int = 16) -> str:
    """Hex digest of a JSON value; equal values give equal digests."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def file_hash(file: Path) -> str:
    """SHA-256 of a file's content, remembered by its path, inode, size and both times of change. Raises OSError.

    A pipe or a device is refused: reading it might never end.
    """
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "Is no regular file" if not file.is_dir() else "Is a directory", str(file))
    with file.open("rb") as stream:
        now, before = time.time_ns(), os.fstat(stream.fileno())
        known = path("hashes", digest([str(file.resolve()), *state(before)]), ".txt")
        with suppress(OSError):
            if SHA256.fullmatch(remembered := read(known)):  # a machine that lost power leaves it empty
                return remembered.decode()
        content = hashlib.file_digest(stream, "sha256").hexdigest()
        is_settled = now - before.st_ctime_ns > SETTLED_NS and state(os.fstat(stream.fileno())) == state(before)
    if is_settled:
        write(known, lambda kept: kept.write(content.encode()))
    return content


def state(found: os.stat_result) -> list[int]:
    """What differs after a change of a file; the time of its inode cannot be set back as that of its content can."""
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def read(file: Path) -> bytes:
    """An entry's content. Raises OSError where there is none, and for what would be waited for: a FIFO, a device."""
    check_regular(file)
    return file.read_bytes()


def write(file: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Write a cache entry atomically; a cache that cannot be written only costs time, so that is no error."""
    with suppress(StorageError):
        write_atomically(file, fill, sync=False)
