"""Inside a batch job of cluster=slurm: its cells, and what happens when it is preempted or reaches its time limit.

That is decided here, not by submitit: its signal handler is replaced by one that queues the job again as long as it
gets on.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

from harness.cells.files import CellFiles
from harness.config.cluster import ClusterSpec
from harness.logs import configure_logging, quiet_bars
from harness.runs.cluster.pack import Pack
from harness.runs.interrupts import keep_interrupts

log = logging.getLogger(__name__)


class CellsFailed(RuntimeError):
    """Cells of this job have failed, each reported in its own log; ends the job as FAILED."""


@dataclass(frozen=True)
class Job:
    """What a batch job does."""

    cluster: ClusterSpec

    def __call__(self, pack: Pack) -> None:
        """Compute the cells. Ends with CellsFailed where one failed, or queues the job again."""
        quiet_bars()
        configure_logging()
        from harness.runs.cluster.compute import compute  # imports torch and tqdm

        requeue = Requeue(self.cluster, pack.cells)
        keep_interrupts()
        signal.signal(getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"), requeue.on_signal)
        done = compute(pack)
        if any(o.status == "missing" for o in done):
            requeue("the GPU failed in a cell")
        failed = [o for o in done if not o.is_done]
        if failed:
            raise CellsFailed(f"{len(failed)} of {len(done)} cells failed: {'; '.join(o.files.label for o in failed)}")


class Requeue:
    """Stops a job and queues it again, unless that would go on for ever."""

    def __init__(self, cluster: ClusterSpec, cells: Sequence[CellFiles]) -> None:
        self.cluster, self.cells = cluster, cells
        self.started = time.monotonic()
        self.progress = self._progress()

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """SLURM says that the job is preempted or near its time limit."""
        near_limit = time.monotonic() - self.started > 60 * self.cluster.minutes - self.cluster.grace_s - 90
        self("near its time limit" if near_limit else "preempted", barren=near_limit and not self._has_progressed())

    def __call__(self, reason: str, *, barren: bool = False) -> None:
        """Leave the job; finished documents are kept, and leases given back on the way out."""
        restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        if barren:
            self._give_up(f"no document was finished within cluster.minutes={self.cluster.minutes}; raise it")
        if restarts >= self.cluster.max_requeues:
            self._give_up(f"{reason} after cluster.max_requeues={self.cluster.max_requeues} requeues")
        log.warning("%s: queued again (%d times before)", reason, restarts)
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True, timeout=60)
        sys.exit(1)

    def _give_up(self, message: str) -> None:
        for cell in self.cells:
            if not cell.is_settled():
                cell.write_failure(f"job not queued again: {message}", "")
        log.error("not queued again: %s", message)
        sys.exit(1)

    def _has_progressed(self) -> bool:
        return self._progress() > self.progress

    def _progress(self) -> int:
        """Finished documents and cells."""
        return sum(10**6 if c.is_settled() else len(list(c.checkpoint.glob("*.npz"))) for c in self.cells)
