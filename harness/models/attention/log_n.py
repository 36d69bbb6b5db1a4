"""The log-n modifier: queries that grow with the number of keys they see, under any method."""

from contextlib import AbstractContextManager

from harness.methods.modifiers.log_n import log_n
from harness.models.attention.scaled_queries import scaled_queries
from harness.models.checkpoint.geometry import text_config, trained_length
from harness.models.parts import CausalLM


def growing_queries(model: CausalLM, trained: int | None = None) -> AbstractContextManager[None]:
    """Until the block ends, every layer multiplies its queries by log-n and attends as it does at its beginning.

    `trained` (tokens) overrides the trained length that the checkpoint declares. Raises UserError as `scaled_queries`.
    """
    base = trained or trained_length(text_config(model.config))
    return scaled_queries(model, lambda length: log_n(length, base), "logn")
