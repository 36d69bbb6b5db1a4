"""Where a sweep runs, as configuration names it."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from harness.errors import UserError, unknown

Cluster = Literal["local", "gpus", "slurm"]  # this process | a process a GPU of this machine | batch jobs


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """The place of a sweep; fields of the other places are not looked at."""

    name: Cluster = "local"
    workers: int | None = None  # gpus: processes; null: one a visible GPU
    partition: str | None = None  # slurm, from here on
    gpus: int = 1  # of a job; 0: cells run on its CPUs
    cpus: int = 8  # of a job
    memory_gb: int | None = None  # of a job; null: what the cluster gives
    minutes: int = 240  # time limit of a job; one that reaches it is queued again and goes on
    parallel: int = 32  # jobs of the array that run at the same time
    cells_per_job: int = 8  # they share one model load
    max_requeues: int = 20  # of a job, after preemption or its time limit; 0: never
    grace_s: int = 120  # before the time limit, for the document that runs
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: list[str] = field(default_factory=list, hash=False)  # shell lines before python, as `module load cuda`
    options: dict[str, Any] = field(default_factory=dict, hash=False)  # of sbatch by their long names

    def __post_init__(self) -> None:
        if self.name not in get_args(Cluster):
            raise unknown("cluster", self.name, get_args(Cluster))
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"cluster.{name} must be at least {least}, got {value}.")
        if not all(isinstance(line, str) for line in self.setup):
            raise UserError(f"cluster.setup must be a list of shell lines, got {self.setup!r}.")
        if self.name == "slurm" and self.grace_s >= 60 * self.minutes:
            raise UserError(
                f"cluster.grace_s must be less than the time limit of {60 * self.minutes} s "
                f"(cluster.minutes={self.minutes}), got {self.grace_s}."
            )


_LEAST = {
    "workers": 1,
    "gpus": 0,
    "cpus": 1,
    "memory_gb": 1,
    "minutes": 1,
    "parallel": 1,
    "cells_per_job": 1,
    "max_requeues": 0,
    "grace_s": 1,
}
