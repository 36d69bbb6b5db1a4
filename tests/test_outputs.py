"""Every command where its home, its caches or its output take nothing: one line, or the work goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import synthetic
from tests.sweeps import Place

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("outputs"))
    synthetic.write(synthetic.sweep(("none", "yarn"), (512, 1024), 5), made.folder / "made")
    return made


def commands(place):
    """Every command that prints, by name; none of them fails."""
    made = str(place.folder / "made")
    own = [o for o in place.overrides if not o.startswith("engine.")]
    return {
        "harness": ["harness", *place.overrides, "ctx=32"],
        "sweep": ["harness", "-m", *place.overrides, "method=none,linear", "ctx=16,32"],
        "dry_run": ["harness", *place.overrides, "ctx=16", "dry_run=true"],
        "help": ["harness", "--help"],
        "plot": ["harness.plot", f"results_dir={made}"],
        "compare": ["harness.compare", made, made],
        "report": ["harness.report", made],
        "theory": ["harness.theory"],
        "export": ["harness.export", "method=yarn", "method.factor=4"],
        "external": ["harness.external", "prompts", *own, "ctx=32", "file=prompts.jsonl"],
        "json": ["harness.plot", f"results_dir={made}", "format=json"],
    }


NAMES = ["harness", "sweep", "dry_run", "help", "plot", "compare", "report", "theory", "export", "external", "json"]


def run(place, name, **options):
    given = {"stdout": subprocess.PIPE, "env": place.environment} | options
    words = [sys.executable, "-m", *commands(place)[name]]
    return subprocess.run(words, cwd=place.folder, stderr=subprocess.PIPE, text=True, timeout=240, **given)


def said(done):
    """The lines on stderr that are no news of progress."""
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("figure ")]
    return [line for line in lines if not line.startswith(("INFO", "WARNING")) and "/s]" not in line]


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_behind_the_output_is_one_line(place, name):
    with open("/dev/full", "w") as full:
        done = run(place, name, stdout=full)
    assert (done.returncode, said(done)) == (1, ["error: standard output cannot be written: No space left on device"])


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_that_leaves_is_nothing(place, name):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(place, name, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, said(done)) == (0, [])


@pytest.mark.parametrize("name", NAMES)
def test_homes_and_caches_that_cannot_be_written_cost_time_only(place, name):
    """/proc takes no files, from root neither."""
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "HARNESS_CACHE", "HF_HOME", "MPLCONFIGDIR"), "/proc/nowhere")
    done = run(place, name, env=place.environment | nowhere)
    assert (done.returncode, [line for line in said(done) if "Traceback" in line or "Error" in line]) == (0, [])
    if name == "json":
        assert json.loads(done.stdout)
    assert not Path("/proc/nowhere").exists()
