"""cluster=gpus: one process a GPU of this machine; each takes the next cell that nobody computes, by its lease.

A process that dies is replaced as long as cells get done; what it held is taken over by the others at once.
"""

import logging
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from harness.cells.files import Outcome
from harness.cells.prepare import Prepared
from harness.config.cluster import ClusterSpec
from harness.errors import UserError
from harness.runs.cluster.pack import Pack
from harness.runs.cluster.record import Progress, Sweep

log = logging.getLogger(__name__)
POLL_S = 0.5


def run(todo: Sequence[Prepared], cluster: ClusterSpec, sweep: Sweep) -> list[Outcome]:
    """Compute cells in worker processes; what became of the sweep's cells. Workers end when this process does."""
    gpus = visible_gpus(todo, cluster)
    workers = []
    try:
        for number, gpu in enumerate(gpus):
            begin = number * len(todo) // len(gpus)  # each from its own share on, so that workers rarely meet
            workers.append(Worker(number, gpu, [*todo[begin:], *todo[:begin]], sweep.folder))
        log.info("%d workers; their logs are in %s", len(workers), sweep.folder)
        with Progress([p.files for p in todo]) as progress:
            while any([worker.is_alive() for worker in workers]):
                progress.update()
                time.sleep(POLL_S)
    finally:
        for worker in workers:
            worker.end()
    return sweep.outcomes({}, f"its worker ended before; see {sweep.folder}")


def visible_gpus(todo: Sequence[Prepared], cluster: ClusterSpec) -> list[str | None]:
    """What CUDA_VISIBLE_DEVICES is to say in every worker; None: no GPU is asked for. Raises UserError."""
    devices = {p.placement.device for p in todo}
    if devices == {"cpu"}:
        if cluster.workers is None:
            raise UserError("cluster=gpus with engine.device=cpu needs cluster.workers, the number of processes.")
        return [None] * min(cluster.workers, len(todo))
    if devices != {"cuda"}:
        raise UserError(
            "cluster=gpus gives every worker a GPU of its own: engine.device must be auto (or cpu), "
            f"got {', '.join(sorted(devices - {'cuda'}))}."
        )
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = given.split(",") if given else [str(i) for i in range(torch.cuda.device_count())]
    wanted = cluster.workers or len(visible)
    if wanted > len(visible):
        raise UserError(f"cluster.workers must be at most the {len(visible)} visible GPUs, got {wanted}.")
    return list(visible[: min(wanted, len(todo))])


class Worker:
    """A process on one GPU, and the next one should it die with cells left."""

    def __init__(self, number: int, gpu: str | None, todo: Sequence[Prepared], folder: Path) -> None:
        self.todo = todo
        self.log = folder / f"worker-{number}.log"
        self.environment = os.environ | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
        self._start()

    def _start(self) -> None:
        self.settled = self._count()
        command = [sys.executable, "-m", "harness.runs.cluster.worker"]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=out, env=self.environment
            )
        assert self.process.stdin is not None
        cells = pickle.dumps(Pack.of(self.todo))
        self.process.stdin.write(len(cells).to_bytes(8, "little") + cells)
        self.process.stdin.flush()  # it stays open: by its end the worker knows that this process is gone

    def _count(self) -> int:
        return sum(p.files.is_settled() for p in self.todo)

    def is_alive(self) -> bool:
        """Whether it runs; one that died is started again where cells were settled meanwhile and some are left."""
        if self.process.poll() is None:
            return True
        if self.process.returncode == 0 or self._count() in (self.settled, len(self.todo)):
            return False
        log.warning("a worker ended with %d (%s); starting another", self.process.returncode, self.log)
        self._start()
        return True

    def end(self) -> None:
        """Stop it if it still runs."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
