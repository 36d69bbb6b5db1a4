"""Which keys a layer lets its queries see, as one number a query: windows, chunks and packed documents."""

from collections.abc import Callable

import torch
from torch import Tensor

from harness.errors import UserError


def first_seen(
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int,
    kv_offset: int,
    mask_function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    attention_mask: Tensor | None,
    device: torch.device,
    **_: object,
) -> Tensor | None:
    """First key that each query of a layer sees, int64 (1, 1, length, 1) on the CPU; None: all see the first token.

    A mask function for transformers' AttentionMaskInterface: `mask_function(batch, head, query, key)` says whether a
    query sees a key. Each query must see an unbroken run of keys that ends at itself, the same in every row of the
    batch; UserError otherwise (padding, caches, attention that is not causal).
    """
    if (q_length, q_offset, kv_offset) != (kv_length, 0, 0):
        raise UserError("Methods that change attention score whole windows: run the model without a cache.")
    if attention_mask is not None and not bool(attention_mask.all()):
        raise UserError("Methods that change attention score whole windows: run the model without padding.")
    rows = torch.arange(batch_size, device=device)[:, None]
    queries = torch.arange(q_length, device=device).expand(batch_size, -1)

    def sees(keys: Tensor) -> Tensor:
        return mask_function(rows, torch.zeros_like(rows), queries, keys).expand(batch_size, q_length)

    if not bool(sees(queries).all()) or bool(
        (sees((queries + 1).clamp(max=q_length - 1)) & (queries + 1 < q_length)).any()
    ):
        raise UserError("Methods that change attention need causal attention in which every token sees itself.")
    first = _search(sees, queries)
    if not bool((first == first[:1]).all()):
        raise UserError("Methods that change attention need windows of one document each, the same in every row.")
    return None if not bool(first.any()) else first[0].cpu()[None, None, :, None]


def _search(sees: Callable[[Tensor], Tensor], queries: Tensor) -> Tensor:
    """The first key seen by each query, by bisection between key 0 and the query itself."""
    low, high = torch.zeros_like(queries), queries.clone()
    while bool((low < high).any()):
        middle = (low + high) // 2
        seen = sees(middle)
        high = torch.where(seen, middle, high)
        low = torch.where(seen, low, torch.minimum(middle + 1, high))
    return high
