"""A sweep on a real SLURM of two nodes: cells that fail, a job that is killed, jobs that are preempted."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from harness.results import store
from tests.sweeps import Place, run

pytestmark = pytest.mark.cluster
SCRIPT = Path(__file__).with_name("slurm.sh")
DOCUMENTS = 400
SWEEP = ("method=none,linear,yarn", "ctx=16,24,32,48,64", "engine.tokens_per_batch=1")
CLUSTER = ("cluster=slurm", "cluster.cpus=1", "cluster.memory_gb=1", "cluster.minutes=5")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A throw-away SLURM; the value of SLURM_CONF that finds it."""
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run(["bash", SCRIPT, "start", folder], capture_output=True, text=True, timeout=180)
    if started.returncode == 77:
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    yield str(folder / "slurm.conf")
    subprocess.run(["bash", SCRIPT, "stop", folder], check=True, timeout=60)


def slurm_command(slurm, *words):
    return subprocess.run(
        words, env=os.environ | {"SLURM_CONF": slurm}, check=True, capture_output=True, text=True
    ).stdout.strip()


def wait_for(launcher, what, seconds=90.0):
    """What `what` finds, as soon as it finds something."""
    end = time.monotonic() + seconds
    while not (found := what()):
        if launcher.poll() is not None or time.monotonic() > end:
            launcher.kill()
            pytest.fail(f"it does not come; the launcher says {launcher.communicate()}")
        time.sleep(0.05)
    return found


def rows(results):
    read = store.load_results(results)
    return read.sort_values(["cell_id", "document_index", "window"], ignore_index=True)


def leases(place):
    """The processes that compute right now, by their job."""
    found = {}
    for file in place.results.rglob("*.lease"):
        try:
            lease = json.loads(file.read_text())
        except (OSError, ValueError):
            continue  # it goes, or comes, this moment
        found[lease["job"]] = lease["pid"]
    return found


def checkpointed(place):
    return {f.parent for f in place.results.rglob("*.npz")}


def sweep_record(place):
    (file,) = place.results.glob(".jobs/*/sweep.json")
    return json.loads(file.read_text()), file.parent


def nodes(slurm):
    """Running jobs: (raw id, array id) by node."""
    found = {}
    for line in slurm_command(slurm, "squeue", "-h", "-t", "RUNNING", "-o", "%N %A %F_%K").splitlines():
        node, raw, job = line.split()
        found.setdefault(node, []).append((raw, job))
    return found


def write_data(folder, texts, num_documents):
    """A data config of the user's own."""
    file = folder / "conf" / "data" / "mine.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    fields = {"name": "mine", "source": "files", "path": str(texts), "num_documents": num_documents}
    file.write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    return folder / "conf"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same sweep without any disturbance, in one process."""
    place = Place(tmp_path_factory.mktemp("undisturbed"), poison_at=60, documents=DOCUMENTS)
    assert place.sweep(*SWEEP, f"data.num_documents={DOCUMENTS}").returncode == 1
    return rows(place.results)


def test_a_sweep_with_failures_a_kill_and_preemption(slurm, undisturbed, tmp_path):
    place = Place(tmp_path, poison_at=60, documents=DOCUMENTS)  # windows of 64 see a NaN
    place.data = "mine"
    place.flags = (f"--config-dir={write_data(tmp_path, place.texts, DOCUMENTS)}",)
    limits = ["cluster.partition=low", "cluster.cells_per_job=3", "cluster.gpus=1", "cluster.parallel=4"]
    launcher = place.shell(*SWEEP, *CLUSTER, *limits, SLURM_CONF=slurm)

    wait_for(launcher, lambda: len(nodes(slurm)) == 2 and len(checkpointed(place)) >= 4)
    write_data(tmp_path, place.texts, 3)  # edited while a job is queued
    record, folder = sweep_record(place)
    running = nodes(slurm)
    preempted = [job for _, job in running["n1"]]
    raw, killed = running["n2"][0]
    os.kill(wait_for(launcher, lambda: leases(place).get(raw)), signal.SIGKILL)
    slurm_command(slurm, "sbatch", "-p", "high", "-w", "n1", "--gpus-per-node=2", "-o", "/dev/null", "--wrap=sleep 2")
    stdout, stderr = launcher.communicate(timeout=200)

    assert launcher.returncode == 1, stderr
    assert len(record["cells"]) == 15
    assert len(record["jobs"]) == 5
    check_report(stdout, record, killed)
    assert "Traceback" in next(place.results.rglob("*/ctx64-*.log")).read_text()
    logs = {job: (folder / f"{job}_0_log.out").read_text() for job in record["jobs"]}
    for job, log in logs.items():
        starts = log.split("Starting with JobEnvironment")[1:]
        loads = [start.count("loaded model tiny") for start in starts]
        assert max(loads) <= 1, log  # one load a task, however many cells
        assert loads[-1] == 1, log
        assert len(starts) - 1 == log.count("queued again") == (job in preempted), log
    there = [int(n) for log in logs.values() for n in re.findall(r"\((\d+) of 400 documents were there\)", log)]
    assert any(0 < n < DOCUMENTS for n in there)  # went on inside a cell

    write_data(tmp_path, place.texts, DOCUMENTS)
    again = place.sweep(*SWEEP)
    assert again.returncode == 1
    done = int(re.search(r"^(\d+) cells: \1 computed, 0 found finished$", stdout, re.MULTILINE)[1])
    assert f"12 cells: {12 - done} computed, {done} found finished" in again.stdout
    same = ["nll_sum", "num_scored", "window", "document", "method", "ctx", "cell_id"]
    pd.testing.assert_frame_equal(rows(place.results)[same], undisturbed[same], check_exact=True)


def check_report(stdout, record, killed):
    """Three cells have failed by themselves; cells of the killed job are reported as its loss; the others are there."""
    failing = {f"model=tiny method={method} ctx=64" for method in ("none", "linear", "yarn")}
    lost = {record["cells"][i]["label"] for i in record["jobs"][killed]}
    reported = dict(re.findall(r"^(?:FAILED|MISSING) +([^:]+): (.*)$", stdout, re.MULTILINE))
    assert failing - lost <= set(reported) <= failing | lost
    for label, message in reported.items():
        if "NonFiniteLoss" in message:
            assert label in failing
        else:
            assert label in lost
            assert f"its job {killed} ended before (FAILED)" in message
    assert any(f"job {killed}" in message for message in reported.values())
    assert f"{len(reported)} of 15 cells have no result" in stdout


def test_a_sweep_whose_launcher_is_gone_is_told_from_its_files(slurm, tmp_path):
    place = Place(tmp_path)
    launcher = place.shell("method=none,yarn", "ctx=16,64", *CLUSTER, "cluster.gpus=0", SLURM_CONF=slurm)
    wait_for(
        launcher, lambda: [f for f in place.results.glob(".jobs/*/sweep.json") if json.loads(f.read_text())["jobs"]]
    )
    launcher.kill()
    launcher.communicate()
    collect = [sys.executable, "-m", "harness.collect", f"results_dir={place.results}"]
    early = run(collect, tmp_path, place.environment | {"SLURM_CONF": slurm})
    assert early.returncode == 1 or "4 computed" in early.stdout
    late = run([*collect, "wait=true"], tmp_path, place.environment | {"SLURM_CONF": slurm})
    assert late.returncode == 0, late.stderr
    assert "4 cells: 4 computed" in late.stdout
    assert (tmp_path / "plots" / "tiny-text-single_pass.svg").exists()


def test_what_sbatch_refuses_is_one_line(slurm, tmp_path):
    place = Place(tmp_path)
    command = place.command("ctx=16,32", *CLUSTER, "cluster.gpus=0", "cluster.partition=nope")
    refused = run(command, tmp_path, place.environment | {"SLURM_CONF": slurm})
    assert refused.returncode == 2
    assert "invalid partition specified: nope" in refused.stderr
    assert sum(line.startswith("error: ") for line in refused.stderr.splitlines()) == 1


def test_a_node_without_the_gpu_that_cells_need_fails_them_in_their_logs(slurm, tmp_path):
    place = Place(tmp_path)
    overrides = [o for o in place.overrides if not o.startswith("engine.")]
    command = [*place.command()[:4], *overrides, "ctx=16,32", *CLUSTER, "cluster.gpus=1"]
    ended = run(command, tmp_path, place.environment | {"SLURM_CONF": slurm})
    assert ended.returncode == 1
    assert ended.stdout.count("no CUDA device is available here") == 2
