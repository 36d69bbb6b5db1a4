"""What is on disk of a cell: where its files lie, and what became of it as they say.

Plain data, so that a sweep whose launcher is gone is reported from files alone. A failure is a log beside the cell's
tables: a few `key: value` lines, an empty line, the traceback.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from harness.results import store
from harness.storage.files import write_text

Done = Literal["finished", "computed"]  # before this run | by this run
Status = Literal["finished", "computed", "failed", "missing"]  # missing: neither computed nor failed


@dataclass(frozen=True)
class CellFiles:
    """The files of one cell, and how to compute it again; needs neither its model nor its configuration."""

    place: Path  # harness.results.store.place: its files without their endings
    tables: tuple[str, ...]
    label: str  # in the words of its overrides
    command: str  # computes this cell alone
    run_id: str  # of the run that wants it
    force: bool  # only what this run computed counts as finished

    @property
    def cell_id(self) -> str:
        """Hash of what determines its numbers."""
        return self.place.name.rpartition("-")[2]

    @property
    def windows(self) -> Path:
        """The table that says that the cell is finished."""
        return store.table_file(self.place)

    @property
    def log(self) -> Path:
        """Where a failure is written, with its traceback."""
        return self._beside(".log")

    @property
    def lease(self) -> Path:
        """Who computes it right now."""
        return self._beside(".lease")

    @property
    def checkpoint(self) -> Path:
        """Folder of its finished documents; a forced run has its own."""
        return self._beside(f".checkpoint-{self.run_id}" if self.force else ".checkpoint")

    def _beside(self, ending: str) -> Path:
        return self.place.with_name(self.place.name + ending)

    def is_finished(self) -> bool:
        """Whether nothing of this cell is left to compute."""
        return store.is_finished(self.place, self.tables, self.run_id if self.force else None)

    def is_settled(self) -> bool:
        """Whether it is finished, as the name of a file says, or has failed in this run; cheap, for polling."""
        if self.force:
            return self.outcome("computed").status != "missing"
        return self.windows.exists() or self.failure() is not None

    def outcome(self, done: Done) -> "Outcome":
        """What the files say; `done` is the status of a finished cell."""
        if self.is_finished():
            return Outcome(self, done)
        message = self.failure()
        if message is not None:
            return Outcome(self, "failed", message)
        return Outcome(self, "missing", "neither computed nor failed: its process ended before")

    def failure(self, *, any_run: bool = False) -> str | None:
        """The message of the failure in this run, or in whichever was last; None if it has not failed."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return None
        head = dict(line.split(": ", 1) for line in lines[: lines.index("") if "" in lines else 0] if ": " in line)
        return head.get("error", "") if any_run or head.get("run") == self.run_id else None

    def write_failure(self, message: str, traceback: str) -> None:
        """Write a failure into the cell's own log. Raises StorageError."""
        head = f"run: {self.run_id}\ncell: {self.label}\ncommand: {self.command}\nerror: {message}\n\n"
        write_text(self.log, head + traceback)


class Outcome(NamedTuple):
    """What became of a cell."""

    files: CellFiles
    status: Status
    message: str = ""  # of a failure, one line

    @property
    def is_done(self) -> bool:
        """Whether its numbers are there."""
        return self.status in ("finished", "computed")
