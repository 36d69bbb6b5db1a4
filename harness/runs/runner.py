"""Computes cells in this process: one model load for all that share it, nothing twice, failures kept apart.

A single command, a worker on a GPU and a batch job on a cluster all come through `run`. Other processes may work on
the same cells at the same time: a lease a cell keeps them apart, and what they finish is taken as found.
"""

import gc
import logging
import time
import traceback
from collections.abc import Iterable, Sequence

from harness import torchrun
from harness.cells.documents import Documents
from harness.cells.files import CellFiles, Outcome
from harness.cells.passes import Pass, passes
from harness.cells.prepare import Prepared
from harness.data.scores import cut
from harness.engine.batches import num_tokens
from harness.errors import UserError, one_line
from harness.results import rows, store
from harness.runs import checkpoints
from harness.runs.leftovers import Leftovers
from harness.runs.provenance import provenance
from harness.runs.ranks import lead
from harness.runs.share import Resources
from harness.storage.files import StorageError
from harness.storage.leases import Leases

log = logging.getLogger(__name__)
WAIT_S = 0.5  # between looks at cells that other processes compute


def run(
    prepared: Sequence[Prepared], documents: Documents | None = None, *, raise_mistakes: bool = False
) -> list[Outcome]:
    """Compute every cell that is not finished yet; returns what became of each, in the given order.

    Raises StorageError where results cannot be written, and with `raise_mistakes` a UserError of a cell, too.
    """
    outcomes: dict[str, Outcome] = {}
    with Leases() as leases:
        runner = _Runner(leases, Resources(documents), raise_mistakes)
        pending = passes(prepared)
        while pending:
            made, pending = runner.round(pending)
            outcomes.update({str(o.files.place): o for o in made})
            if runner.is_device_lost:
                break
            if pending and not made:
                time.sleep(WAIT_S)
    return [outcomes.get(str(p.files.place), Outcome(p.files, "missing", _NOT_RUN)) for p in prepared]


_NOT_RUN = "not run, since the GPU failed in an earlier cell of the same process"


class _Runner:
    """What the cells of this process share."""

    def __init__(self, leases: Leases, resources: Resources, raise_mistakes: bool) -> None:
        self.leases = leases
        self.resources = resources
        self.raise_mistakes = raise_mistakes
        self.leftovers = Leftovers()
        self.is_device_lost = False
        self.is_waiting = False

    def round(self, pending: Sequence[Pass]) -> tuple[list[Outcome], list[Pass]]:
        """Try every pass once; returns what became of its cells, and the cells that are still open."""
        outcomes: list[Outcome] = []
        left: list[Pass] = []
        self.leftovers = Leftovers()
        self.resources.coming = pending
        for current in pending:
            made, rest = self.attempt(current)
            outcomes += made
            left += [Pass(rest)] if rest else []
            if self.is_device_lost:
                break
        return outcomes, left

    def attempt(self, current: Pass) -> tuple[list[Outcome], tuple[Prepared, ...]]:
        """One pass: the outcomes of its cells, and the cells that wait for another process or a shorter pass."""
        settled, missing = self._settled(current.cells)
        if not missing:
            return settled, ()
        leases = [p.files.lease for p in missing]
        if not self.leases.acquire(leases):
            self._log_waiting(missing[0])
            return settled, missing
        try:
            meanwhile, missing = self._settled(missing)
            made, rest = self._compute(Pass(missing)) if missing else ([], ())
        finally:
            self.leases.release(leases)
        return [*settled, *meanwhile, *made], rest

    def _settled(self, cells: Iterable[Prepared]) -> tuple[list[Outcome], tuple[Prepared, ...]]:
        """Cells that are finished or have failed in this run, and the others."""
        found = [(p, p.files.outcome("finished")) for p in cells]
        for p, outcome in found:
            if outcome.is_done:
                self.leftovers.tidy(p.files, self.leases)
        missing = tuple(p for p, outcome in found if outcome.status == "missing")
        return [outcome for _, outcome in found if outcome.status != "missing"], missing

    def _compute(self, current: Pass) -> tuple[list[Outcome], tuple[Prepared, ...]]:
        """Compute a pass; where it fails its longest cell has failed, and the others may try a shorter pass."""
        try:
            _run_pass(self.resources, current)
        except StorageError:
            raise
        except Exception as error:
            if self.raise_mistakes and isinstance(error, UserError):
                raise
            self.is_device_lost = _is_device_lost(error)
            same = [p for p in current.cells if p.cell.cell_id == current.longest.cell.cell_id]  # by other names
            failed = [_fail(p.files, error) for p in same]
            del error
            gc.collect()  # the traceback held the tensors of the failed pass
            return failed, current.cells[len(same) :]
        for p in current.cells:
            self.leftovers.remove(p.files)
        return [Outcome(p.files, "computed") for p in current.cells], ()

    def _log_waiting(self, one: Prepared) -> None:
        if not self.is_waiting:
            log.info("%s is being computed by another process; waiting where nothing else is to do", one.files.label)
        self.is_waiting = True


def _fail(files: CellFiles, error: Exception) -> Outcome:
    """Keep the traceback in the cell's own log and go on with the others."""
    message = f"{type(error).__name__}: {one_line(error)}"
    if isinstance(error, UserError):
        message = one_line(error)
    files.write_failure(message, "".join(traceback.format_exception(error)))
    log.error("FAILED %s: %s (traceback in %s)", files.label, message, files.log)
    return Outcome(files, "failed", message)


def _is_device_lost(error: Exception) -> bool:
    """Whether a CUDA error leaves this process without a usable GPU; running out of memory does not."""
    import torch

    return "CUDA error" in str(error) and not isinstance(error, torch.OutOfMemoryError)


def _run_pass(resources: Resources, current: Pass) -> None:
    """One pass over the documents at its longest length; every cell of it is written, the longest last.

    The pass is kept document by document under the name of its longest cell, until that is written: a pass that was
    killed goes on with the next document, one that was killed between two cells with the next cell.
    """
    documents = resources.documents.of(current.longest)
    planned = resources.documents.windows(current.longest)
    kept = checkpoints.load(current.checkpoint, planned)
    finished = {scored.document for scored in kept}
    share = lead.compute(resources, current, finished)
    scored = sorted([*kept, *share.scores], key=lambda s: s.document)
    tokens = sum(num_tokens(windows) for i, windows in enumerate(planned) if i not in finished)
    computed = {
        "installed": share.installed,
        **({} if share.base_installed is None else {"base_installed": share.base_installed}),
        "seconds": share.seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / share.seconds,
        "resumed_documents": len(kept),
        "ranks": torchrun.size(),
    }
    for p in reversed(current.cells):
        own = scored if p.cell.ctx == current.longest.cell.ctx else [cut(s, p.cell.ctx) for s in scored]
        tables = rows.tables(p.cell.tables, own, documents.documents, p.cell.ctx)
        store.write(p.cell.config.results_dir, p.cell.columns, tables, provenance(p) | computed)
        log.info("computed %s (%d of %d documents were there)", p.files.label, len(kept), len(planned))
