"""What a process says on stderr while it works: log lines and progress bars."""

import logging
import os
import sys
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 1.0  # of work, after which a bar says how far it is and what is left


def configure_logging() -> None:
    """Warnings of all, and what the harness does, on stderr."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    logging.getLogger("harness").setLevel(logging.INFO)


def quiet_bars() -> None:
    """Progress bars that end in a log file: a line every half minute. Before tqdm is imported."""
    assert "tqdm" not in sys.modules
    os.environ.setdefault("TQDM_MININTERVAL", "30")


def progress(things: Iterable[T], doing: str, unit: str, total: int | None = None) -> Iterable[T]:
    """The same things, with a progress bar and the time that is left where they take longer than a second."""
    from tqdm.auto import tqdm

    return tqdm(things, total=total, desc=doing, unit=unit, delay=PATIENCE_S, leave=False, dynamic_ncols=True)
