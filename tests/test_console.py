"""What a command owes its terminal, tried as a shell would."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "harness", "--cfg=job"]


def shell(end: str) -> "subprocess.CompletedProcess[str]":
    line = " ".join(COMMAND) + end
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        (" | true; exit ${PIPESTATUS[0]}", 0, ""),
        (" >&-", 0, ""),
        (" > /dev/full", 1, "error: standard output cannot be written: No space left on device\n"),
    ],
)
def test_an_output_that_takes_nothing_leaves_no_traceback(end: str, code: int, said: str) -> None:
    done = shell(end)
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize("installed_elsewhere", [False, True])
def test_a_plain_checkout_says_how_to_install(tmp_path: Path, installed_elsewhere: bool) -> None:
    if installed_elsewhere:  # by an editable install, as `make run` does
        (tmp_path / "longctx_harness.egg-info").mkdir()
        (tmp_path / "longctx_harness.egg-info" / "PKG-INFO").write_text("Name: longctx-harness\nVersion: 1\n")
    package = Path(__file__).parents[1] / "harness"
    (tmp_path / "harness").symlink_to(package)
    done = subprocess.run([sys.executable, "-S", "-m", "harness"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: harness is not installed. In its folder: pip install")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("work", ["raise KeyboardInterrupt", "exec('raise KeyboardInterrupt')"])
def test_an_interrupt_gives_its_exit_code_wherever_it_falls(tmp_path: Path, work: str) -> None:
    """Python ends `-m` by the signal, whatever is caught, where it fell into an `exec` of text."""
    (tmp_path / "command.py").write_text(f"from harness import console\nwith console.guarded():\n    {work}\n")
    done = subprocess.run([sys.executable, "-m", "command"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
