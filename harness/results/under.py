"""Which files of results lie below a path."""

import os
from collections.abc import Iterator
from pathlib import Path

from harness.errors import UserError
from harness.results import parquet

APART = ".apart"  # in a folder of results that are read only where the folder itself is named: a committed baseline


def tables_under(path: str | Path, table: str = "windows") -> list[Path]:
    """The files of a table that `load_results` reads: all below a directory, but those of sets apart; or the one."""
    root = Path(path)
    try:
        kind = parquet.other_kind(root)
    except FileNotFoundError:
        raise UserError(f"results path {str(root)!r} does not exist.") from None
    if kind is None:
        return [root]
    if kind == "a directory":
        return sorted(_below(root, f".{table}.parquet"))
    raise UserError(f"results path must be a directory or a file, got {str(root)!r}, which is {kind}.")


def sets_apart(root: Path) -> str:
    """Which sets apart there would be to read."""
    found = sorted(str(file.parent) for file in root.rglob(APART) if file.parent != root)
    return f"; sets of their own, to be named as such: {', '.join(found)}" if found else ""


def _below(root: Path, ending: str) -> Iterator[Path]:
    """Files of an ending below a folder; sets of their own (folders that hold a file APART) only as `root` itself."""
    for folder, folders, names in os.walk(root):
        if APART in names and folder != str(root):
            folders.clear()
        else:
            yield from (Path(folder, name) for name in [*names, *folders] if name.endswith(ending))
