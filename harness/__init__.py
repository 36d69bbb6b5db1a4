"""Perplexity of language models beyond the context length they were trained on."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.results.store import load_results
    from harness.statistics.summary import Averaging, summarize

__all__ = ["Averaging", "__version__", "load_results", "summarize"]
__version__ = version("longctx-harness")


def __getattr__(name: str) -> Any:
    """What needs pandas is imported when it is asked for: --help needs none."""
    if name == "load_results":
        from harness.results.store import load_results

        return load_results
    if name in ("Averaging", "summarize"):
        from harness.statistics import summary

        return getattr(summary, name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
