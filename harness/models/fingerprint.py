"""Fingerprints of files by their content, remembered by path, size and time of change."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from harness.errors import UserError


def fingerprint(paths: Iterable[Path], *settings: str) -> str:
    """Sixteen hex digits over the names and contents of files and over settings; no order of paths matters."""
    parts = sorted(f"{path.name} {content_hash(path)}" for path in paths)
    return hashlib.sha256("\n".join([*parts, *settings]).encode()).hexdigest()[:16]


def content_hash(path: Path) -> str:
    """SHA-256 of a file's content, computed once for every (path, size, time of change)."""
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    key = f"{path.resolve()}|{state.st_size}|{state.st_mtime_ns}"
    remembered = cache_dir() / "hashes" / hashlib.sha256(key.encode()).hexdigest()
    try:
        return remembered.read_text()
    except FileNotFoundError:
        digest = _digest(path)
        _remember(remembered, digest)
        return digest


def cache_dir() -> Path:
    """Where the harness keeps what it can compute again: $XDG_CACHE_HOME/longctx-harness."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "longctx-harness"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remember(path: Path, digest: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(digest)
        unfinished.replace(path)
    except OSError:  # a read-only home costs time, not correctness
        return
