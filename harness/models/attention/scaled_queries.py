"""Queries multiplied by their position's scale before a layer attends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.errors import UserError
from harness.models.attention.layer_rotation import check_reached
from harness.models.attention.route import present, routed
from harness.models.parts import CausalLM

Scale = Callable[[int], NDArray[np.float64]]  # of the queries of a window, (length,)


@contextmanager
def scaled_queries(model: CausalLM, scale: Scale, what: str) -> Iterator[None]:
    """Until the block ends, every layer multiplies its queries by `scale(length)` and attends as it did before.

    Layers that see only a window, and layers without positions, are multiplied too. `what` asks for it. Raises
    UserError, by name, where layers do not call attention through transformers' interface, and for models run with a
    cache.
    """
    check_reached(model)
    attention, mask = present(model)

    def scaled(
        module: nn.Module, query: Tensor, key: Tensor, *rest: object, **options: object
    ) -> tuple[Tensor, Tensor | None]:
        if query.shape[2] != key.shape[2]:
            raise UserError(f"{what} scores whole windows: run the model without a cache.")
        return attention(module, _multiplied(query, scale(query.shape[2])), key, *rest, **options)

    with routed(model, scaled, mask):
        yield


def _multiplied(query: Tensor, scale: NDArray[np.float64]) -> Tensor:
    """Queries (batch, heads, length, head_dim), each times the scale (length,) of its position."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    return (query * torch.from_numpy(scale).to(query.device, dtype)[:, None]).to(query.dtype)
