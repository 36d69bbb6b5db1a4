"""Fingerprints of files by their content."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from harness.errors import UserError
from harness.storage import cache


def fingerprint(folder: Path, paths: Iterable[Path], *settings: str) -> str:
    """Sixteen hex digits over the names, as `folder` shows them, and contents of files and over settings.

    No order of paths matters. Raises UserError for a file that cannot be read.
    """
    try:
        parts = sorted(f"{_name(path, folder)} {cache.file_hash(path)}" for path in paths)
    except OSError as error:
        raise UserError(f"Cannot read {error.filename}: {error.strerror}.") from None
    return hashlib.sha256("\n".join([*parts, *settings]).encode()).hexdigest()[:16]


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
