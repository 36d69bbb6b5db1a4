"""A sweep that runs elsewhere, reported from files alone: its record in results/.jobs/<run_id>/, and its cells."""

import json
import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.cells.files import CellFiles, Outcome
from harness.errors import UserError
from harness.storage.files import check_regular, write_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sweep:
    """All cells of one sweep, where its figure goes, and the batch jobs that compute them."""

    run_id: str
    command: str
    figure: Path
    cells: list[CellFiles]
    finished_before: list[bool]
    jobs: dict[str, list[int]]  # job -> its cells, by number

    @property
    def folder(self) -> Path:
        """Where the record and the logs of the sweep lie."""
        return self.cells[0].place.parents[2] / ".jobs" / self.run_id

    def save(self) -> None:
        """Write the record. Raises StorageError."""
        write_text(self.folder / "sweep.json", json.dumps(asdict(self), default=str, indent=1))

    def outcomes(self, missing: dict[int, str], otherwise: str) -> list[Outcome]:
        """What became of every cell; `missing` and `otherwise` say why one was neither computed nor failed."""
        made = []
        for i, (cell, before) in enumerate(zip(self.cells, self.finished_before, strict=True)):
            outcome = cell.outcome("finished" if before else "computed")
            lost = outcome.status == "missing"
            made.append(outcome._replace(message=missing.get(i, otherwise)) if lost else outcome)
        return made

    @staticmethod
    def begin(cells: Sequence[CellFiles], finished: Sequence[bool], figure: Path) -> "Sweep":
        """Record a sweep that is about to run elsewhere. Raises StorageError."""
        command = shlex.join(["python", "-m", "harness", *sys.argv[1:]])
        sweep = Sweep(cells[0].run_id, command, figure, list(cells), list(finished), {})
        sweep.save()
        return sweep

    @staticmethod
    def load(folder: Path) -> "Sweep":
        """The record of a sweep. Raises UserError where it is none."""
        file = folder / "sweep.json"
        try:
            check_regular(file)
            values: dict[str, Any] = json.loads(file.read_text())
            cells = [_cell_files(cell) for cell in values.pop("cells")]
            return Sweep(**values | {"cells": cells, "figure": Path(values["figure"])})
        except FileNotFoundError:
            raise UserError(f"{str(file)!r} does not exist.") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{str(file)!r} is not the record of a sweep: {error}") from None

    @staticmethod
    def newest(results: Path) -> "Sweep":
        """The sweep under a results directory that was started last. Raises UserError where there is none."""
        files = sorted(results.glob(".jobs/*/sweep.json"), key=lambda file: file.stat().st_mtime_ns)
        if not files:
            raise UserError(f"no sweep with cluster=slurm or cluster=gpus was started into {str(results)!r}.")
        return Sweep.load(files[-1].parent)


def _cell_files(written: dict[str, Any]) -> CellFiles:
    return replace(CellFiles(**written), place=Path(written["place"]), tables=tuple(written["tables"]))


class Progress:
    """A bar over the cells of a sweep that counts files."""

    def __init__(self, cells: Sequence[CellFiles]) -> None:
        from tqdm.auto import tqdm

        self.open = list(cells)
        self.note = ""
        self.bar = tqdm(total=len(self.open), desc="cells", unit="cell", dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.update()
        self.bar.close()

    def update(self, note: str = "") -> bool:
        """Look at the files; returns whether every cell is settled."""
        still = [cell for cell in self.open if not cell.is_settled()]
        if len(still) < len(self.open) or note != self.note:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(len(self.open) - len(still))
        self.note = note
        self.open = still
        return not still
