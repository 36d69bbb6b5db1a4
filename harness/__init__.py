"""Perplexity of language models beyond the context length they were trained on."""

from importlib.metadata import version

__version__ = version("longctx-harness")
