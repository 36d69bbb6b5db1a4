"""Perplexity of language models beyond the context length they were trained on."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.notebook import figure, run
    from harness.results.store import load_results
    from harness.statistics.long_context import long_context
    from harness.statistics.metric import Choice
    from harness.statistics.summary import Averaging, summarize

__all__ = ["Averaging", "Choice", "__version__", "figure", "load_results", "long_context", "run", "summarize"]
__version__ = version("longctx-harness")

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
