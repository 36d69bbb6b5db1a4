"""What a command line is checked with is light: a mistyped key is answered before torch or pandas is imported."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "pandas", "pyarrow", "datasets", "matplotlib")


@pytest.mark.parametrize(
    "module", ["harness", "harness.cli", "harness.config", "harness.config.schema", "harness.longrope_search.config"]
)
def test_importing_what_checks_a_command_line_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
