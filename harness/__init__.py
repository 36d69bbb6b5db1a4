"""Perplexity of language models beyond the context length they were trained on."""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from harness import console

if console.is_command():
    console.until_guarded()

if TYPE_CHECKING:
    from harness.notebook import figure, run
    from harness.results.store import load_results
    from harness.statistics.long_context import long_context
    from harness.statistics.metric import Choice
    from harness.statistics.summary import Averaging, summarize

__all__ = ["Averaging", "Choice", "__version__", "figure", "load_results", "long_context", "run", "summarize"]
NEEDED = ("hydra", "numpy", "pandas", "torch", "transformers")
try:
    __version__ = version("longctx-harness")
    if not all(map(find_spec, NEEDED)):  # installed for another Python, which leaves its metadata in the checkout
        raise PackageNotFoundError
except PackageNotFoundError:
    INSTALL = (
        "harness is not installed. In its folder: pip install -e '.[demo]' "
        "(or make run, into a .venv there: source .venv/bin/activate)"
    )
    if console.is_command():
        sys.exit(f"error: {INSTALL}")
    raise ImportError(INSTALL) from None

_PLACES = {
    "load_results": "harness.results.store",
    "Averaging": "harness.statistics.summary",
    "summarize": "harness.statistics.summary",
    "Choice": "harness.statistics.metric",
    "long_context": "harness.statistics.long_context",
    "figure": "harness.notebook",
    "run": "harness.notebook",
}


def __getattr__(name: str) -> Any:
    """What needs pandas is imported when it is asked for: --help needs none."""
    module = _PLACES.get(name)
    if module is not None:
        return getattr(import_module(module), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
