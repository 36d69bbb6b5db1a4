"""What is known of a cell without its model: where its files lie, how to compute it again, and what became of it.

Plain data, so that a sweep whose launcher is gone is told from files alone. A failure is a log beside the cell's
tables: a few `key: value` lines, an empty line, the traceback.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.results import store
from harness.storage.files import write_atomically


@dataclass(frozen=True)
class Record:
    """One cell of a run."""

    place: Path  # harness.results.store.place: its files without their endings
    tables: tuple[str, ...]
    label: str  # in the words of its overrides
    command: str  # computes this cell alone
    run_id: str  # of the run that wants it
    force: bool  # only what this run computed counts as finished

    @property
    def windows(self) -> Path:
        """The table that says that the cell is finished."""
        return store.table_file(self.place)

    @property
    def log(self) -> Path:
        """Where a failure is told, with its traceback."""
        return self.place.with_name(self.place.name + ".log")

    @property
    def lease(self) -> Path:
        """Who computes it right now."""
        return self.place.with_name(self.place.name + ".lease")

    @property
    def checkpoint(self) -> Path:
        """Folder of its finished documents; a forced run has its own."""
        return self.place.with_name(self.place.name + (f".checkpoint-{self.run_id}" if self.force else ".checkpoint"))


class Outcome(NamedTuple):
    """What became of a cell."""

    record: Record
    status: str  # "finished" (before) | "computed" | "failed" | "missing" (neither computed nor failed)
    message: str = ""  # of a failure, one line

    @property
    def is_done(self) -> bool:
        """Whether its numbers are there."""
        return self.status in ("finished", "computed")


def is_finished(record: Record) -> bool:
    """Whether nothing of this cell is left to compute."""
    return store.is_finished(record.place, record.tables, record.run_id if record.force else None)


def write_failure(record: Record, message: str, traceback: str) -> None:
    """Tell a failure in the cell's own log. Raises StorageError."""
    head = f"run: {record.run_id}\ncell: {record.label}\ncommand: {record.command}\nerror: {message}\n\n"
    write_atomically(record.log, lambda stream: stream.write((head + traceback).encode()))


def failure(record: Record, *, any_run: bool = False) -> str | None:
    """The message of the failure of this cell in this run, or in whichever was last; None if it has not failed."""
    try:
        lines = record.log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    head = dict(line.split(": ", 1) for line in lines[: lines.index("") if "" in lines else 0] if ": " in line)
    return head.get("error", "") if any_run or head.get("run") == record.run_id else None


def outcome(record: Record, done: str) -> Outcome:
    """What the files say of a cell; `done` is the status of a finished one."""
    if is_finished(record):
        return Outcome(record, done)
    message = failure(record)
    if message is not None:
        return Outcome(record, "failed", message)
    return Outcome(record, "missing", "neither computed nor failed: its process ended before")


def command(overrides: Sequence[str], sweep: bool) -> str:
    """A line for the shell that computes one cell, with the configuration files of the present command."""
    return shlex.join(["python", "-m", "harness", *(["-m"] if sweep else []), *_config_flags(sys.argv), *overrides])


def _config_flags(arguments: Sequence[str]) -> list[str]:
    """Hydra's flags that say where configuration comes from, as given."""
    found = []
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        name, is_joined, _ = flag.partition("=")
        if name in ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"):
            found += [flag] if is_joined else [flag, value]
    return found
