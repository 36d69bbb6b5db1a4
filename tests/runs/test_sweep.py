"""Sweeps as commands: what is printed, what the exit code says, and where cells run."""

import contextlib
import json
import re
import signal
import sys
import time

import pytest

from harness.errors import UserError
from harness.runs import sweep
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
    end = place.start("hydra/launcher=basic", "method=none,yarn", "method.factor=4", "ctx=16,64").end()
    assert end.returncode == 1, end.stderr
    assert "method=none runs without method.factor" in end.stderr
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
    process = place.start(
        "cluster=gpus", "cluster.workers=2", "method=none,linear,yarn", "method.factor=4", "ctx=16,64"
    )
    process.signal_other(computing(place, process), signal.SIGKILL)
    end = process.end()
    assert end.returncode == 0, end.stderr
    assert "method=none runs without method.factor" in end.stderr
    assert "6 cells: 6 computed" in end.stdout
    logs = "".join(f.read_text() for f in place.results.glob(".jobs/*/worker-*.log"))
    computed = re.findall(r"computed (model=.*? ctx=\d+)", logs)
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
