"""The script that measures several GPUs, tried on a CPU with small shapes."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.sweeps import run

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scale.py"

pytestmark = pytest.mark.slow


def scale(folder, *arguments):
    """The rows of one command on two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(SCRIPT)]
    done = run(
        [*command, *arguments, "--cpu", "--tiny", "--out", str(folder)], folder, os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("scale-*.json")
    rows = json.loads(file.read_text())
    file.unlink()
    return rows


def test_every_case_is_measured_or_named_as_left_out(tmp_path):
    rows = scale(tmp_path, "equal", "documents", "context", "reach")
    assert [row["largest"] < 1e-5 for row in rows[:2]] == [True] * 2
    assert [row["case"] for row in rows[2:]] == [
        "4 documents of 128",
        *(f"one window of {n}" for n in (128, 512, 1024, 2048)),
        "one window of 28672, 1 of 3 layers",
    ]
    assert all(row["largest"] < 1e-5 for row in rows[3:7])
    left_out = scale(tmp_path, "documents", "context", "reach", "--budget", "0")
    assert [row["case"] for row in left_out] == [row["case"] for row in rows[2:]]
    assert all(row["note"].startswith("left out: counted") for row in left_out)


def test_a_window_in_full_goes_on_from_command_to_command(tmp_path):
    kept = str(tmp_path / "kept")
    (whole,) = scale(tmp_path, "full", "--keep", kept + "-whole")[1:]
    notes = [scale(tmp_path, "full", "--keep", kept, "--budget", "0") for _ in range(3)]
    assert [rows[0]["note"].split(":")[0] for rows in notes] == [
        "kept behind 1 of 3 layers", "kept behind 2 of 3 layers", "finished",
    ]  # fmt: skip
    found = notes[2][1]
    assert (found["commands"], found["finite"], found["scored"]) == (3, True, 8191)
    assert found["mean_loss"] == whole["mean_loss"]
