"""What a process says on stderr while it works: log lines and progress bars."""

import logging
import os
import sys


def configure_logging() -> None:
    """Warnings of all, and what the harness does, on stderr."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    logging.getLogger("harness").setLevel(logging.INFO)


def quiet_bars() -> None:
    """Progress bars that end in a log file: a line every half minute. Before tqdm is imported."""
    assert "tqdm" not in sys.modules
    os.environ.setdefault("TQDM_MININTERVAL", "30")
