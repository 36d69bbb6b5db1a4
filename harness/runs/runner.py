"""Computes cells in this process: one model load for all that share it, nothing twice, failures kept apart.

A single command, a worker on a GPU and a batch job on a cluster all come through `run`. Other processes may work on
the same cells at the same time: a lease a cell keeps them apart, and what they finish is taken as found.
"""

import dataclasses
import gc
import logging
import os
import platform
import shlex
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import pandas as pd

from harness import torchrun
from harness.cells import cell as cells
from harness.cells import record as records
from harness.cells.cell import Cell
from harness.cells.prepare import Prepared
from harness.cells.record import Outcome, Record
from harness.data.documents import DocumentSet
from harness.engine import scores as evaluate
from harness.errors import UserError
from harness.results import store
from harness.runs import checkpoints
from harness.runs.passes import Passes, plan
from harness.runs.provenance import commit
from harness.runs.ranks import lead as team
from harness.storage.files import StorageError, remove_temporary
from harness.storage.leases import Leases

log = logging.getLogger(__name__)
WAIT_S = 0.5  # between looks at cells that other processes compute


def run(prepared: Sequence[Prepared], *, raise_mistakes: bool = False) -> list[Outcome]:
    """Compute every cell that is not finished yet, and tell of each what became of it, in the given order.

    Raises StorageError where results cannot be written, and with `raise_mistakes` a UserError of a cell, too.
    """
    outcomes: dict[str, Outcome] = {}
    with Leases() as leases:
        runner = _Runner(leases, raise_mistakes)
        pending = _passes(prepared)
        while pending:
            made, pending = runner.round(pending)
            outcomes.update({str(o.record.place): o for o in made})
            if runner.is_device_lost:
                break
            if pending and not made:
                time.sleep(WAIT_S)
    return [outcomes.get(str(p.record.place), Outcome(p.record, "missing", _NOT_RUN)) for p in prepared]


_NOT_RUN = "not run, since the GPU failed in an earlier cell of the same process"


def _passes(prepared: Sequence[Prepared]) -> list[list[Prepared]]:
    """Cells by the pass that serves them; a cell that is asked for twice comes once."""
    known = {p.cell.cell_id: p for p in prepared}
    return [[known[cell.cell_id] for cell in group] for group in cells.passes(p.cell for p in known.values())]


class _Runner:
    """What the cells of this process share."""

    def __init__(self, leases: Leases, raise_mistakes: bool) -> None:
        self.leases = leases
        self.raise_mistakes = raise_mistakes
        self.is_device_lost = False
        self.is_waiting = False
        self.passes = Passes()

    def round(self, pending: Iterable[list[Prepared]]) -> tuple[list[Outcome], list[list[Prepared]]]:
        """Try every pass once; returns what became of its cells, and the cells that are still open."""
        outcomes: list[Outcome] = []
        left: list[list[Prepared]] = []
        for group in pending:
            made, rest = self.attempt(group)
            outcomes += made
            left += [rest] if rest else []
            if self.is_device_lost:
                break
        return outcomes, left

    def attempt(self, group: list[Prepared]) -> tuple[list[Outcome], list[Prepared]]:
        """One pass: the outcomes of its cells, and the cells that wait for another process or a shorter pass."""
        settled, missing = self._settled(group)
        if not missing:
            return settled, []
        leases = [p.record.lease for p in missing]
        if not self.leases.acquire(leases):
            self._tell_waiting(missing)
            return settled, missing
        try:
            meanwhile, missing = self._settled(missing)
            made, rest = self._compute(missing) if missing else ([], [])
        finally:
            self.leases.release(leases)
        return [*settled, *meanwhile, *made], rest

    def _settled(self, group: list[Prepared]) -> tuple[list[Outcome], list[Prepared]]:
        """Cells that are finished or have failed in this run, and the others."""
        found = [(p, records.outcome(p.record, "finished")) for p in group]
        for p, outcome in found:
            if outcome.is_done:
                self._tidy(p.record)
        missing = [p for p, outcome in found if outcome.status == "missing"]
        return [outcome for _, outcome in found if outcome.status != "missing"], missing

    def _compute(self, group: list[Prepared]) -> tuple[list[Outcome], list[Prepared]]:
        """Compute a pass; where it fails its longest cell has failed, and the others may try a shorter pass."""
        try:
            _run_pass(self.passes, group)
        except StorageError:
            raise
        except Exception as error:
            if self.raise_mistakes and isinstance(error, UserError):
                raise
            self.is_device_lost = _is_device_lost(error)
            failed = _fail(group[0].record, error)
            del error
            gc.collect()  # the traceback held the tensors of the failed pass
            return [failed], group[1:]
        for p in group:
            _remove_leftovers(p.record)
        return [Outcome(p.record, "computed") for p in group], []

    def _tidy(self, record: Record) -> None:
        """Remove what a process that was killed right behind its last write left of a finished cell."""
        if _leftovers(record) and self.leases.acquire([record.lease]):
            _remove_leftovers(record)
            self.leases.release([record.lease])

    def _tell_waiting(self, group: list[Prepared]) -> None:
        if not self.is_waiting:
            log.info(
                "%s is being computed by another process; waiting where nothing else is to do", group[0].record.label
            )
        self.is_waiting = True


def _leftovers(record: Record) -> bool:
    name = record.place.name
    return any(f.suffix != ".parquet" and ".set-aside-" not in f.name for f in record.place.parent.glob(f"*{name}*"))


def _remove_leftovers(record: Record) -> None:
    """Checkpoints, the log of an earlier failure, and temporary files of killed writers."""
    record.log.unlink(missing_ok=True)
    for folder in record.place.parent.glob(f"{record.place.name}.checkpoint*"):
        checkpoints.discard(folder)
    remove_temporary(record.place.parent, record.place.name)


def _fail(record: Record, error: Exception) -> Outcome:
    """Keep the traceback in the cell's own log and go on with the others."""
    message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, UserError):
        message = " ".join(str(error).split())
    records.write_failure(record, message, "".join(traceback.format_exception(error)))
    log.error("FAILED %s: %s (traceback in %s)", record.label, message, record.log)
    return Outcome(record, "failed", message)


def _is_device_lost(error: Exception) -> bool:
    """Whether a CUDA error leaves this process without a usable GPU; running out of memory does not."""
    import torch

    return "CUDA error" in str(error) and not isinstance(error, torch.OutOfMemoryError)


def _run_pass(passes: Passes, group: list[Prepared]) -> None:
    """One pass over the documents at the longest length of the group; every cell of it is written, the longest last.

    The pass is kept document by document under the name of its longest cell, until that is written: a pass that was
    killed goes on with the next document, one that was killed between two cells with the next cell.
    """
    documents = passes.documents(group[0])
    planned = plan(group[0], documents)
    kept = checkpoints.load(group[0].record.checkpoint, planned)
    finished = {scored.document for scored in kept}
    made, seconds = team.compute(passes, group, finished)
    scored = sorted([*kept, *made], key=lambda s: s.document)
    tokens = sum(evaluate.num_tokens(windows) for i, windows in enumerate(planned) if i not in finished)
    cost = {
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "resumed_documents": len(kept),
        "ranks": torchrun.size(),
    }
    for p in reversed(group):
        own = scored if p is group[0] else [evaluate.cut(s, p.cell.ctx) for s in scored]
        store.write(p.cell.config.results_dir, p.cell.columns, tables(p.cell, own, documents), provenance(p) | cost)
        log.info("computed %s (%d of %d documents were there)", p.record.label, len(kept), len(planned))


def tables(one: Cell, scored: list[evaluate.Scores], documents: DocumentSet) -> dict[str, pd.DataFrame]:
    """The tables of a cell from the losses of its documents, in document order."""
    pairs = [(s, documents.documents[s.document]) for s in scored]
    made = {
        "windows": pd.concat([evaluate.window_rows(s, d) for s, d in pairs], ignore_index=True),
        "positions": pd.concat([evaluate.position_rows(s, d, one.ctx) for s, d in pairs], ignore_index=True),
    }
    if "tokens" in one.tables:
        made["tokens"] = pd.concat([evaluate.token_rows(s, d) for s, d in pairs], ignore_index=True)
    return made


def provenance(prepared: Prepared) -> dict[str, Any]:
    """Everything that is worth knowing about how a cell was made."""
    return {
        "config": _without_places(dataclasses.asdict(prepared.cell.config)),
        "run_id": prepared.record.run_id,
        "commit": commit(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "command": shlex.join(["python", "-m", "harness", *sys.argv[1:]]),
        "device": prepared.placement.device,
        "versions": {p: version(p) for p in ("longctx-harness", "torch", "transformers", "datasets", "numpy")},
        "python": platform.python_version(),
    }


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without where its files lie: that says nothing about the numbers, and much about a machine."""
    return {key: value for key, value in config.items() if key not in ("results_dir", "plots_dir")}
