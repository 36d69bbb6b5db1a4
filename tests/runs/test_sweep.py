"""Sweeps as commands: what is printed, what the exit code says, and where cells run."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time

import pytest

from harness.config.cluster import ClusterSpec
from harness.errors import UserError
from harness.models.checkpoint import load as loading
from harness.results import store
from harness.runs import runner, sweep
from harness.runs.cluster import slurm, slurm_job
from harness.runs.cluster.compute import compute
from harness.runs.cluster.pack import Pack
from harness.runs.cluster.record import Sweep
from harness.runs.summary import figure_path
from harness.storage import leases
from tests.sweeps import Place, run


def test_a_sweep_with_failures_says_all_at_its_end_and_its_commands_work(tmp_path, own_cache):
    place = Place(tmp_path, poison_at=40)
    end = place.start("method=none,yarn", "ctx=16,32,64").end()
    assert end.returncode == 1
    assert "4 cells: 4 computed, 0 found finished" in end.stdout
    assert "2 of 6 cells have no result" in end.stdout
    assert end.stdout.count("NonFiniteLoss") == 2
    assert "figure   plots/tiny-text-single_pass.svg" in end.stdout
    again = [line.split(maxsplit=1)[1] for line in end.stdout.splitlines() if line.strip().startswith("again ")]
    assert len(again) == 2
    assert again[0].endswith("method=none ctx=64")
    alone = run(
        ["bash", "-c", again[0].replace("python", sys.executable, 1)], tmp_path, place.environment
    )  # the very line that was printed
    assert alone.returncode == 1
    assert "1 of 1 cells have no result" in alone.stdout
    assert len(list(place.results.rglob("*.windows.parquet"))) == 4


def test_adding_a_length_computes_only_the_new_cells(place):
    assert "2 cells: 2 computed" in place.start("method=none,yarn", "ctx=32").end().stdout
    grown = place.start("method=none,yarn", "ctx=32,64").end()
    assert "4 cells: 2 computed, 2 found finished" in grown.stdout
    assert grown.stderr.count("computed model=") == 2


def test_a_dry_run_lists_cells_and_costs_and_writes_nothing(place):
    place.start("method=none", "ctx=32").end()
    files = place.files()
    end = place.start("method=none,yarn", "ctx=32,64", "dry_run=true").end()
    assert end.returncode == 0
    lines = {line.split("  ")[0]: line for line in end.stdout.splitlines()}
    assert "finished" in lines["model=tiny method=none ctx=32"]
    assert "to do" in lines["model=tiny method=yarn ctx=64"]
    assert "4 cells: 1 finished, 3 to compute" in end.stdout
    assert "GFLOP/s" in end.stdout
    assert place.files() == files


def test_another_launcher_of_hydra_runs_cells_one_by_one_and_ends_alike(tmp_path, own_cache):
    place = Place(tmp_path, poison_at=40)
    end = place.start("hydra/launcher=basic", "method=none,yarn", "ctx=16,64").end()
    assert end.returncode == 1, end.stderr
    assert "2 cells: 2 computed" in end.stdout
    assert "2 of 4 cells have no result" in end.stdout
    assert "Traceback" in next(place.results.rglob("*.log")).read_text()


def computing(place, process):
    """The process that computes a cell right now, by its lease; None once the sweep has ended."""
    while process.is_alive():
        for file in place.results.rglob("*.lease") if place.results.exists() else ():
            with contextlib.suppress(OSError, ValueError):
                return json.loads(file.read_text())["pid"]
        time.sleep(0.005)
    return None


def test_a_pool_of_workers_computes_every_cell_once_though_one_is_killed(place):
    process = place.start("cluster=gpus", "cluster.workers=2", "method=none,linear,yarn", "ctx=16,64")
    process.signal_other(computing(place, process), signal.SIGKILL)
    end = process.end()
    assert end.returncode == 0, end.stderr
    assert "6 cells: 6 computed" in end.stdout
    logs = "".join(f.read_text() for f in place.results.glob(".jobs/*/worker-*.log"))
    computed = re.findall(r"computed (model=\S+ method=\S+ ctx=\d+)", logs)
    assert len(computed) == len(set(computed)) >= 5  # the kill may fall between a write and its line in the log


def test_workers_end_with_the_process_that_started_them(place):
    process = place.start("cluster=gpus", "cluster.workers=1", "method=linear,yarn", "ctx=16,32,64,128")
    worker = computing(place, process)
    assert leases._started(worker)
    process.signal(signal.SIGKILL)
    process.end()
    deadline = time.monotonic() + 20
    while leases._started(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(list(place.results.rglob("*.windows.parquet"))) < 8


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


def test_cells_of_one_sweep_have_one_place(place):
    configs = [*place.configs("ctx=32"), *place.configs("ctx=64 cluster=slurm")]
    with pytest.raises(UserError, match="belong to the whole sweep"):
        sweep.main(configs, sweep=True)


def test_the_launchers_of_submitit_are_refused_by_what_does_their_work():
    with pytest.raises(UserError, match=r"runs through cluster=slurm here \(this machine's GPUs: cluster=gpus\)"):
        sweep.check_launcher("hydra_plugins.hydra_submitit_launcher.submitit_launcher")
    sweep.check_launcher("hydra_plugins.hydra_ray_launcher.ray_launcher")


def test_a_figure_never_leaves_its_folder(place):
    (config,) = place.configs("ctx=32 experiment_name=../../outside")
    assert figure_path(config).resolve().parent == (place.folder / "plots").resolve()


def test_a_model_that_changes_after_submission_fails_its_cells(place):
    pack = Pack.of(place.prepared("method=none ctx=32"))
    config = place.model / "config.json"
    config.write_text(config.read_text().replace('"rope_theta": 10000.0', '"rope_theta": 20000.0'))
    for cached in (loading._read_config, loading.load_geometry, loading.load_tokenizer):
        cached.cache_clear()
    (outcome,) = compute(pack)
    assert outcome.status == "failed"
    assert "changed after the sweep was started" in outcome.message
    assert not store.is_finished(outcome.files.place, ["windows"])
    assert runner.run(place.prepared("method=none ctx=32"))[0].status == "computed"
