"""Hashes of files and the on-disk cache of what is derived from them; nothing in it is ever a result."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from harness.storage.files import StorageError, write_atomically


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
    """SHA-256 of a file's content, remembered by path, size and modification time."""
    stat = file.stat()
    known = path("hashes", digest([str(file.resolve()), stat.st_size, stat.st_mtime_ns]), ".txt")
    try:
        return known.read_text()
    except OSError:
        pass
    with file.open("rb") as stream:
        content = hashlib.file_digest(stream, "sha256").hexdigest()
    write(known, lambda stream: stream.write(content.encode()))
    return content


def write(file: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Write a cache entry atomically; a cache that cannot be written only costs time, so that is no error."""
    with suppress(StorageError):
        write_atomically(file, fill, sync=False)
