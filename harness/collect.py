"""``python -m harness.collect``: the end of a sweep on a cluster, from files alone when its launcher is gone."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from harness import cli
from harness.errors import UserError


def main() -> None:
    """Compose conf/collect.yaml and report: table, figure, failures, and what still waits or runs."""
    cli.run_app(_task, "collect")


def _task(composed: DictConfig) -> None:
    from harness.config.checks import check_kinds, folder, plain
    from harness.runs.cluster import slurm
    from harness.runs.cluster.record import Sweep
    from harness.runs.summary import report
    from harness.statistics.format_names import beside, check_format

    values = plain(composed)
    check_kinds(values, {"sweep": str | int | None, "wait": bool})
    results = folder(values, "results_dir")
    sweep = Sweep.newest(results) if values["sweep"] is None else Sweep.load(_named(results, str(values["sweep"])))
    table = check_format(values["format"])
    print(f"sweep    {sweep.run_id}: {sweep.command}\n", file=beside(table))
    queue = slurm.Queue(sweep.jobs)
    if sweep.jobs and not values["wait"]:
        queue.settle()
    found = slurm.wait(sweep) if values["wait"] else slurm.outcomes(sweep, queue)
    report(found, sweep.figure, table)
    if not all(o.is_done for o in found):
        sys.exit(1)


def _named(results: Path, sweep: str) -> Path:
    """The record of a sweep by its id, or its beginning."""
    found = [f for f in results.glob(".jobs/*") if f.name.startswith(sweep)]
    if len(found) != 1:
        known = ", ".join(sorted(f.name for f in results.glob(".jobs/*"))) or "none"
        raise UserError(f"sweep must name one of the sweeps started into {str(results)!r} ({known}), got {sweep!r}.")
    return found[0]


if __name__ == "__main__":
    from harness.collect import main as imported  # Hydra looks the task up by its module, which may not be __main__

    imported()
