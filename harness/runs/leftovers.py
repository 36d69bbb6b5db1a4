"""What killed processes left beside the tables of a cell: found by one look at each folder, whatever it holds."""

import os
from collections import defaultdict
from pathlib import Path

from harness.cells.files import CellFiles
from harness.runs import checkpoints
from harness.storage.leases import Leases


class Leftovers:
    """Logs, checkpoints, leases and temporary files by the cells that they are of, as the folders were at first."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[Path]]] = {}

    def of(self, files: CellFiles) -> list[Path]:
        """All that is no table of a cell, and none that was set aside."""
        folder = files.place.parent
        if folder not in self._folders:
            self._folders[folder] = _by_cell(folder)
        return self._folders[folder].get(files.place.name, [])

    def tidy(self, files: CellFiles, leases: Leases) -> None:
        """Remove what a process that was killed right behind its last write left of a finished cell."""
        if self.of(files) and leases.acquire([files.lease]):
            self.remove(files)
            leases.release([files.lease])

    def remove(self, files: CellFiles) -> None:
        """Forget the checkpoints, the log of an earlier failure, and temporary files of killed writers of a cell."""
        files.log.unlink(missing_ok=True)
        checkpoints.discard(files.checkpoint)
        for path in self.of(files):
            if path.name.startswith(f"{files.place.name}.checkpoint"):
                checkpoints.discard(path)
            elif path.name.startswith("."):
                path.unlink(missing_ok=True)


def _by_cell(folder: Path) -> dict[str, list[Path]]:
    """Files that are no tables, by the name of the cell that theirs begins with."""
    found: dict[str, list[Path]] = defaultdict(list)
    if folder.is_dir():
        for name in os.listdir(folder):
            if not name.endswith(".parquet") and ".set-aside-" not in name:
                found[name.removeprefix(".").partition(".")[0]].append(folder / name)
    return found
