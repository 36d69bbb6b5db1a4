"""Perplexity of language models beyond the context length they were trained on."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.results.store import load_results
    from harness.statistics.summary import summarize

__all__ = ["__version__", "load_results", "summarize"]
__version__ = version("longctx-harness")


def __getattr__(name: str) -> Any:
    """`harness.load_results` and `harness.summarize`, imported when asked for: --help needs no pandas."""
    if name == "load_results":
        from harness.results.store import load_results

        return load_results
    if name == "summarize":
        from harness.statistics.summary import summarize

        return summarize
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
