"""The log-n modifier: queries that grow with the number of keys they see, under any method."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.methods.modifiers.log_n import log_n
from harness.models.attention.layer_rotation import check_reached
from harness.models.attention.route import present, routed
from harness.models.checkpoint.geometry import text_config, trained_length
from harness.models.parts import CausalLM


@contextmanager
def growing_queries(model: CausalLM, trained: int | None = None) -> Iterator[None]:
    """Until the block ends, every layer multiplies its queries by log-n and attends as it does at its beginning.

    `trained` (tokens) overrides the trained length that the checkpoint declares. Layers that see only a window, and
    layers without positions, are multiplied too. Raises UserError, by name, where layers do not call attention
    through transformers' interface, and for models run with a cache.
    """
    check_reached(model)
    base = trained or trained_length(text_config(model.config))
    attention, mask = present(model)

    def grown(
        module: nn.Module, query: Tensor, key: Tensor, *rest: object, **options: object
    ) -> tuple[Tensor, Tensor | None]:
        if query.shape[2] != key.shape[2]:
            raise UserError("logn scores whole windows: run the model without a cache.")
        return attention(module, _grown(query, base), key, *rest, **options)

    with routed(model, grown, mask):
        yield


def _grown(query: Tensor, trained: int) -> Tensor:
    """Queries (batch, heads, length, head_dim), each multiplied by the log-n of its position."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    growth = torch.from_numpy(log_n(query.shape[2], trained)).to(query.device, dtype)
    return (query * growth[:, None]).to(query.dtype)
