"""Cells on their way to another process: jobs, the queue they wait in, and the record of their sweep."""

import signal
import subprocess

import pytest

from harness.config.cluster import ClusterSpec
from harness.results import store
from harness.runs import runner
from harness.runs.cluster import slurm, slurm_job
from harness.runs.cluster.compute import compute
from harness.runs.cluster.pack import Pack
from harness.runs.cluster.record import Sweep


class Cell:
    def __init__(self, model, pass_id):
        self.config = type("Config", (), {"model": model, "engine": "engine"})()
        self.pass_id = pass_id


def packs(cells, size):
    prepared = [type("P", (), {"cell": Cell(*cell)})() for cell in cells]
    return [[(p.cell.config.model, p.cell.pass_id) for p in pack] for pack in slurm.split(prepared, size)]


def test_jobs_keep_passes_together_and_models_apart():
    cells = [("a", 1), ("b", 1), ("a", 2), ("a", 3), ("a", 1), ("b", 2), ("b", 3)]
    assert packs(cells, 2) == [
        [("a", 1), ("a", 1)],
        [("a", 2), ("a", 3)],
        [("b", 1), ("b", 2)],
        [("b", 3)],
    ]
    assert packs(cells, 1) == [[("a", 1), ("a", 1)], [("a", 2)], [("a", 3)], [("b", 1)], [("b", 2)], [("b", 3)]]
    assert sorted(len(p) for p in packs(cells, 100)) == [3, 4]


def answers(monkeypatch, *texts):
    """Let squeue answer so, one look after the other; an exception is no answer."""
    left = list(texts)

    def squeue(*args, **kwargs):
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return subprocess.CompletedProcess([], *answer)

    monkeypatch.setattr(slurm.subprocess, "run", squeue)


def test_a_job_has_ended_when_the_queue_says_so_twice(monkeypatch):
    answers(
        monkeypatch,
        (0, "7_0|RUNNING\n7_1|PENDING\n", ""),
        (0, "7_0|PREEMPTED\n7_1|RUNNING\n", ""),  # on its way back into the queue
        (1, "", "slurm_load_jobs error: Unable to contact slurm controller"),
        OSError("no squeue"),
        (0, "7_0|PENDING\n7_1|FAILED\n", ""),
        (0, "7_0|RUNNING\n", ""),
        (1, "", "slurm_load_jobs error: Invalid job id specified"),
        (1, "", "slurm_load_jobs error: Invalid job id specified"),
    )
    queue = slurm.Queue(["7_0", "7_1"])
    alive = []
    for _ in range(8):
        queue.look()
        alive.append(sorted(queue.alive))
    both, first = ["7_0", "7_1"], ["7_0"]
    assert alive == [both, both, both, both, both, first, first, []]
    assert queue.states["7_1"] == "FAILED"


def requeue(place, monkeypatch, *, restarts=0, ran_s=10.0, documents=1, **cluster):
    """What a job does on its signal: the commands it runs, and the message of its cells."""
    (prepared,) = place.prepared("method=none ctx=32")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    commands = []
    monkeypatch.setattr(slurm_job.subprocess, "run", lambda command, **kwargs: commands.append(command))
    job = slurm_job.Requeue(ClusterSpec(name="slurm", **cluster), [prepared.files])
    for number in range(documents):
        prepared.files.checkpoint.mkdir(parents=True, exist_ok=True)
        (prepared.files.checkpoint / f"{number}.npz").touch()
    job.started -= ran_s
    with pytest.raises(SystemExit):
        job.on_signal(signal.SIGUSR2, None)
    return commands, prepared.files.failure()


def test_a_preempted_job_is_queued_again_whatever_it_has_done(place, monkeypatch):
    assert requeue(place, monkeypatch, documents=0) == ([["scontrol", "requeue", "7"]], None)
    assert requeue(place, monkeypatch, documents=0, minutes=5) == ([["scontrol", "requeue", "7"]], None)


def test_a_job_at_its_time_limit_is_queued_again_as_long_as_it_gets_on(place, monkeypatch):
    assert requeue(place, monkeypatch, ran_s=14_300) == ([["scontrol", "requeue", "7"]], None)
    commands, failure = requeue(place, monkeypatch, ran_s=14_300, documents=0)
    assert commands == []
    assert failure == "job not queued again: no document was finished within cluster.minutes=240; raise it"


def test_requeues_have_an_end(place, monkeypatch):
    commands, failure = requeue(place, monkeypatch, restarts=20)
    assert commands == []
    assert "cluster.max_requeues=20" in failure


def test_the_record_of_a_sweep_reads_back_as_written(place):
    prepared = place.prepared("method=none ctx=32", "method=yarn ctx=32")
    written = Sweep.begin([p.files for p in prepared], [True, False], place.folder / "plots" / "x")
    assert Sweep.load(written.folder) == written
    assert Sweep.newest(place.results) == written


def test_a_model_that_changes_after_submission_fails_its_cells(place):
    pack = Pack.of(place.prepared("method=none ctx=32"))
    config = place.model / "config.json"
    config.write_text(config.read_text().replace('"rope_theta": 10000.0', '"rope_theta": 20000.0'))
    (outcome,) = compute(pack)
    assert outcome.status == "failed"
    assert "changed after the sweep was started" in outcome.message
    assert not store.is_finished(outcome.files.place, ["windows"])
    assert runner.run(place.prepared("method=none ctx=32"))[0].status == "computed"
