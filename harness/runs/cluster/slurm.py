"""cluster=slurm: an array of batch jobs, submitted through submitit; a job computes several cells with one model load.

Whether jobs are alive is asked of squeue, which every cluster has, not of sacct; what became of cells is read from
files. What runs inside a job is in `slurm_job`.
"""

import logging
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.cells.files import Outcome
from harness.config.cluster import ClusterSpec
from harness.engine.spec import EngineSpec
from harness.errors import UserError, install, one_line
from harness.models.checkpoint.spec import ModelSpec
from harness.runs.cluster.pack import Pack
from harness.runs.cluster.record import Progress, Sweep
from harness.runs.cluster.slurm_job import Job

if TYPE_CHECKING:
    from harness.cells.prepare import Prepared

log = logging.getLogger(__name__)
FILES_S, QUEUE_S = 2.0, 10.0  # between looks at files, and at the queue
LARGEST_ARRAY = 1000  # below MaxArraySize as SLURM comes (1001)
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip


def run(todo: "Sequence[Prepared]", cluster: ClusterSpec, sweep: Sweep) -> list[Outcome]:
    """Submit the missing cells, wait for their jobs; returns what became of the sweep's cells."""
    numbers = {cell.place: i for i, cell in enumerate(sweep.cells)}
    jobs = submit(todo, cluster, sweep)
    sweep = replace(sweep, jobs={job: [numbers[p.files.place] for p in cells] for job, cells in jobs.items()})
    sweep.save()
    log.info(
        "submitted %d jobs for %d cells: %s; their logs are in %s", len(jobs), len(todo), _short(jobs), sweep.folder
    )
    return wait(sweep)


def submit(todo: "Sequence[Prepared]", cluster: ClusterSpec, sweep: Sweep) -> "dict[str, list[Prepared]]":
    """One array of jobs, or several where SLURM takes no longer one; the cells of every job by its id."""
    try:
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError
    except ModuleNotFoundError:
        raise UserError(f"cluster=slurm needs submitit: {install('slurm')}") from None
    packs = list(split(todo, cluster.cells_per_job))
    jobs: dict[str, list[Prepared]] = {}
    try:
        executor = SlurmExecutor(folder=sweep.folder)
        executor.update_parameters(**parameters(cluster))
        for begin in range(0, len(packs), LARGEST_ARRAY):
            part = packs[begin : begin + LARGEST_ARRAY]
            submitted = executor.map_array(Job(cluster), [Pack.of(cells) for cells in part])
            jobs |= {job.job_id: cells for job, cells in zip(submitted, part, strict=True)}
    except RuntimeError as error:
        raise UserError(f"cluster=slurm: {error}") from error
    except (FailedJobError, subprocess.CalledProcessError) as error:
        raise UserError(f"cluster=slurm: sbatch refused: {one_line(error)}") from error
    return jobs


def split(todo: "Sequence[Prepared]", cells_per_job: int) -> "Iterator[list[Prepared]]":
    """Cells by jobs: of one model and engine, cells that share a pass together, never more jobs than needed."""
    by_model: dict[tuple[ModelSpec, EngineSpec], dict[str, list[Prepared]]] = {}
    for p in todo:
        groups = by_model.setdefault((p.cell.config.model, p.cell.config.engine), {})
        groups.setdefault(p.cell.pass_id, []).append(p)
    for groups in by_model.values():
        pack: list[Prepared] = []
        for group in groups.values():
            if pack and len(pack) + len(group) > cells_per_job:
                yield pack
                pack = []
            pack = pack + group
        yield pack


def parameters(cluster: ClusterSpec) -> dict[str, object]:
    """What sbatch is given, in submitit's words."""
    given: dict[str, object] = {
        "job_name": "harness",
        "partition": cluster.partition,
        "time": cluster.minutes,
        "cpus_per_task": cluster.cpus,
        "gpus_per_node": cluster.gpus or None,
        "mem": cluster.memory_gb and f"{cluster.memory_gb}GB",
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "array_parallelism": cluster.parallel,
        "signal_delay_s": cluster.grace_s,
        "setup": [str(line) for line in cluster.setup] or None,
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True} | {str(k): v for k, v in cluster.options.items()},
    }
    return {name: value for name, value in given.items() if value is not None}


def wait(sweep: Sweep) -> list[Outcome]:
    """Look at files and queue until every cell is settled or its job has ended."""
    wanted = sorted({i for cells in sweep.jobs.values() for i in cells})
    queue = Queue(sweep.jobs)
    try:
        with Progress([sweep.cells[i] for i in wanted]) as progress:
            while not progress.update(queue.note) and queue.is_alive():
                time.sleep(FILES_S)
    except KeyboardInterrupt:
        results = shlex.quote(str(sweep.folder.parents[1]))
        sys.exit(
            f"no longer watching; the jobs go on (scancel {_short(sweep.jobs)} ends them), and "
            f"python -m harness.collect results_dir={results} reports them"
        )
    return outcomes(sweep, queue)


def outcomes(sweep: Sweep, queue: "Queue") -> list[Outcome]:
    """What became of every cell; of one that is neither computed nor failed, what became of its job."""
    ends: dict[int, str] = {}
    for job, cells in sweep.jobs.items():
        state = queue.states.get(job, "gone from the queue")
        text = f"its job {job} is {state}" if job in queue.alive else f"its job {job} ended before ({state})"
        ends |= dict.fromkeys(cells, f"{text}; log {sweep.folder / f'{job}_0_log.out'}")
    return sweep.outcomes(ends, "no job was submitted for it")


def _short(jobs: Iterable[str]) -> str:
    """Array jobs by their common number."""
    return " ".join(sorted({job.partition("_")[0] for job in jobs}, key=int))


class Queue:
    """The states of jobs, as squeue lists them; asked every QUEUE_S seconds."""

    def __init__(self, jobs: Iterable[str]) -> None:
        self.alive = set(jobs)
        self.states: dict[str, str] = {}
        self.note = ""
        self._ended: set[str] = set()  # at the last look; believed at the second, since a job may be queued again
        self._next = 0.0

    def is_alive(self) -> bool:
        """Whether any job still waits or runs."""
        if self.alive and time.monotonic() >= self._next:
            self._next = time.monotonic() + QUEUE_S
            self.look()
        return bool(self.alive)

    def settle(self) -> None:
        """Look twice: what has ended is then known."""
        self.look()
        self.look()

    def look(self) -> None:
        """Ask once; an answer that does not come changes nothing."""
        listed = self._ask()
        if listed is None:
            return
        self.states |= listed
        ended = {job for job in self.alive if listed.get(job, "COMPLETED") in ENDED}
        self.alive -= ended & self._ended
        self._ended = ended
        counts = [listed[job] for job in self.alive if job in listed and job not in ended]
        self.note = ", ".join(f"{counts.count(state)} {state.lower()}" for state in sorted(set(counts)))

    def _ask(self) -> dict[str, str] | None:
        numbers = _short(self.alive).replace(" ", ",")
        command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", f"--jobs={numbers}"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            log.warning("squeue does not answer: %s", error)
            return None
        if answer.returncode and "Invalid job id" not in answer.stderr:
            log.warning("squeue does not answer: %s", " ".join(answer.stderr.split()))
            return None
        return {job: state for job, _, state in (line.strip().partition("|") for line in answer.stdout.splitlines())}
