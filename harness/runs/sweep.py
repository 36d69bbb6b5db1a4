"""One command from its configurations to its end: what is missing is computed where `cluster` says, then reported."""

import logging
import sys
import uuid
from collections.abc import Callable, Sequence

from harness import torchrun
from harness.cells.device import check_device
from harness.cells.documents import Documents
from harness.cells.files import Outcome
from harness.cells.passes import distinct
from harness.cells.prepare import Prepared, prepare
from harness.config.cluster import ClusterSpec
from harness.config.schema import Config
from harness.errors import UserError
from harness.results import store
from harness.runs.cluster.record import Sweep
from harness.runs.leftovers import Leftovers
from harness.runs.summary import figure_path, report
from harness.storage.leases import Leases

log = logging.getLogger(__name__)


def main(configs: Sequence[Config], *, sweep: bool) -> None:
    """Compute what is missing and report: table, figure, failures. Leaves with exit code 1 where a cell failed.

    Raises UserError for a mistake, before the first cell.
    """
    cluster = _cluster(configs)
    prepared = distinct(_start(configs, sweep=sweep))
    if configs[0].dry_run:
        from harness.cells import dry_run

        return dry_run.show(prepared)
    return _end(run(prepared, cluster), configs[0])


def elsewhere(configs: Sequence[Config], launch: Callable[[list[int]], None]) -> None:
    """The same with the missing cells, by number, computed by another launcher, each in a `one_cell` of its own."""
    if torchrun.size() > 1:
        raise UserError("hydra/launcher starts its own processes: run it without torchrun.")
    if _cluster(configs).name != "local":
        raise UserError("hydra/launcher and cluster both say where cells run: give one of them.")
    prepared = _start(configs, sweep=True)
    kept = [next(i for i, p in enumerate(prepared) if p is one) for one in distinct(prepared)]
    missing = [i for i in kept if not prepared[i].files.outcome("finished").is_done]
    documents = Documents()
    for i in missing:
        documents.of(prepared[i])
    if missing:
        launch(missing)
    after = [prepared[i].files.outcome("computed" if i in missing else "finished") for i in kept]
    reasons = [prepared[i].files.failure(any_run=True) or "its process ended before" for i in kept]
    ends = [o if o.is_done else o._replace(status="failed", message=r) for o, r in zip(after, reasons, strict=True)]
    _end(ends, configs[0])


def one_cell(config: Config) -> None:
    """One cell of a sweep in a process of another launcher; raises CellFailed, which every launcher understands."""
    from harness.runs import runner

    prepared = _start([config], sweep=True)
    check_device(config.engine, config.cluster)
    failed = [o for o in runner.run(prepared) if not o.is_done]
    if failed:
        raise CellFailed(f"{failed[0].files.label}: {failed[0].message}")


def check_launcher(module: str) -> None:
    """Raise UserError for launchers that lose failures, drift and results; `cluster` does their work."""
    if "submitit" in module:
        raise UserError("hydra/launcher: submitit runs through cluster=slurm here (this machine's GPUs: cluster=gpus).")


class CellFailed(RuntimeError):
    """A cell has failed, and its own log says why."""


def _start(configs: Sequence[Config], *, sweep: bool) -> list[Prepared]:
    for results in {c.results_dir for c in configs if not c.dry_run}:
        store.check_writable(results)
    for plots in {c.plots_dir for c in configs if sweep and not c.dry_run}:
        store.check_writable(plots, "figures")
    prepared = prepare(configs, uuid.uuid4().hex, sweep=sweep)
    found = [p.files for p in prepared if not p.cell.config.dry_run]
    store.set_damaged_aside((files.place, table) for files in found for table in files.tables)
    return prepared


def _end(outcomes: list[Outcome], config: Config) -> None:
    report(outcomes, figure_path(config), config.format)
    if not all(o.is_done for o in outcomes):
        sys.exit(1)


def _cluster(configs: Sequence[Config]) -> ClusterSpec:
    """The one place of all cells."""
    if any(c.cluster != configs[0].cluster or c.dry_run != configs[0].dry_run for c in configs):
        raise UserError("cluster and dry_run belong to the whole sweep: give one value, not several to choose from.")
    if torchrun.size() > 1 and configs[0].cluster.name != "local":
        raise UserError(f"cluster={configs[0].cluster.name} starts its own processes: run it without torchrun.")
    if torchrun.size() > 1 and any(c.model.device_map is not None for c in configs):
        raise UserError("model.device_map spreads a model over the GPUs of one process: run it without torchrun.")
    return configs[0].cluster


def run(prepared: Sequence[Prepared], cluster: ClusterSpec) -> list[Outcome]:
    """The outcomes of all cells, in their order; documents are tokenized, once, before anything starts."""
    if cluster.name != "slurm":
        for engine in {p.cell.config.engine for p in prepared}:
            check_device(engine, cluster)
    before = [p.files.outcome("finished") for p in prepared]
    todo = [p for p, o in zip(prepared, before, strict=True) if not o.is_done]
    if todo and len(todo) < len(prepared):
        log.info("%d of %d cells are finished, %d to compute", len(prepared) - len(todo), len(prepared), len(todo))
    if not todo:
        _tidy(before)
        return before
    documents = Documents()
    for p in todo:
        documents.of(p)
    if cluster.name == "local":
        from harness.runs import runner

        return runner.run(prepared, documents, raise_mistakes=len(prepared) == 1)
    figure = figure_path(prepared[0].cell.config)
    recorded = Sweep.begin([p.files for p in prepared], [o.is_done for o in before], figure)
    return _places()[cluster.name](todo, cluster, recorded)


def _tidy(finished: Sequence[Outcome]) -> None:
    leftovers = Leftovers()
    with Leases() as leases:
        for outcome in finished:
            leftovers.tidy(outcome.files, leases)


Place = Callable[[Sequence[Prepared], ClusterSpec, Sweep], list[Outcome]]


def _places() -> dict[str, Place]:
    from harness.runs.cluster import gpus, slurm

    return {"gpus": gpus.run, "slurm": slurm.run}
