"""What is worth knowing about how a cell was made: configuration, state of the source, machine, versions."""

import dataclasses
import os
import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

from harness.cells.prepare import Prepared
from harness.storage.cache import digest

PACKAGE = Path(__file__).parents[1]  # harness/


def provenance(prepared: Prepared) -> dict[str, object]:
    """All of it for one cell, as JSON values; what was installed and what it cost is added by whoever computed it."""
    return {
        "config": _without_places(dataclasses.asdict(prepared.cell.config)),
        "run_id": prepared.files.run_id,
        "commit": commit(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "command": shlex.join(["python", "-m", "harness", *sys.argv[1:]]),
        "device": prepared.placement.device,
        "versions": dict(_versions()),
        "python": platform.python_version(),
    }


def _without_places(config: dict[str, object]) -> dict[str, object]:
    """The configuration without where its files lie: that says nothing about the numbers, and much about a machine."""
    return {key: value for key, value in config.items() if key not in ("results_dir", "plots_dir", "format")}


@cache
def _versions() -> dict[str, str]:
    return {p: version(p) for p in ("longctx-harness", "torch", "transformers", "datasets", "numpy")}


@cache
def commit() -> str | None:
    """The git commit that this package runs from, with `+` where files differ from it; None outside a checkout."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    try:
        return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", "--", "harness", "conf") else "")
    except (OSError, subprocess.CalledProcessError):
        return None  # no git here


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(PACKAGE.parent), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def source() -> str:
    """Digest of the package's Python files: whether a queued job runs the code that was submitted."""
    files = sorted(PACKAGE.rglob("*.py"))
    return digest([[str(f.relative_to(PACKAGE)), f.read_text()] for f in files])
