"""Hashes of files and the on-disk cache of what is derived from them; nothing in it is ever a result."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from harness.storage.files import StorageError, write_atomically

SETTLED_NS = 2_000_000_000  # a file that changed later than this may change again within one tick of its clock
SHA256_DIGITS = 64


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
    """SHA-256 of a file's content, remembered by its path, inode, size and both times of change. Raises OSError."""
    with file.open("rb") as stream:
        now, stat = time.time_ns(), os.fstat(stream.fileno())
        known = path("hashes", digest([str(file.resolve()), *state(stat)]), ".txt")
        with suppress(OSError):
            if len(remembered := known.read_text()) == SHA256_DIGITS:  # a machine that lost power leaves it empty
                return remembered
        content = hashlib.file_digest(stream, "sha256").hexdigest()
        is_settled = now - stat.st_ctime_ns > SETTLED_NS and state(os.fstat(stream.fileno())) == state(stat)
    if is_settled:
        write(known, lambda kept: kept.write(content.encode()))
    return content


def state(stat: os.stat_result) -> list[int]:
    """What differs after a change of a file; the time of its inode cannot be set back as that of its content can."""
    return [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def write(file: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Write a cache entry atomically; a cache that cannot be written only costs time, so that is no error."""
    with suppress(StorageError):
        write_atomically(file, fill, sync=False)
