"""Which state of the harness's own source made a result."""

import subprocess
from functools import cache
from pathlib import Path

from harness.storage.cache import digest

PACKAGE = Path(__file__).parents[1]  # harness/


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
