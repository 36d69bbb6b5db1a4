"""Fingerprints of files by their content."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from harness.errors import UserError
from harness.storage import cache


def fingerprint(paths: Iterable[Path], *settings: str) -> str:
    """Sixteen hex digits over the names and contents of files and over settings; no order of paths matters."""
    try:
        parts = sorted(f"{path.name} {cache.file_hash(path)}" for path in paths)
    except OSError as error:
        raise UserError(f"Cannot read {error.filename}: {error.strerror}.") from None
    return hashlib.sha256("\n".join([*parts, *settings]).encode()).hexdigest()[:16]
