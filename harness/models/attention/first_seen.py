"""Which keys a layer lets its queries see, as one number a query: windows, chunks and packed documents."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.masking_utils import causal_mask_function

from harness.errors import UserError
from harness.models.checkpoint.geometry import text_config


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
    config: PretrainedConfig,
    **options: object,
) -> Tensor | None:
    """First key that each query of a layer sees, int64 (1, 1, length, 1) on the CPU; None: all see the first token.

    A mask function for transformers' AttentionMaskInterface: `mask_function(batch, head, query, key)` says whether a
    query sees a key. Each query must see an unbroken run of keys that ends at itself, the same in every row of the
    batch; UserError otherwise (padding, caches, attention that is not causal, layers that read the mask themselves).
    A mask that hides everything, which some families make for layers that they do not have: an empty tensor.
    """
    name = text_config(config).model_type
    check_unread(name, mask_function, options)
    if (q_length, q_offset, kv_offset) != (kv_length, 0, 0):
        raise UserError(f"{name}: attention is over whole windows here: run the model without a cache.")
    if attention_mask is not None and not bool(attention_mask.all()):
        raise UserError(f"{name}: attention is over whole windows here: run the model without padding.")
    rows = torch.arange(batch_size, device=device)[:, None]
    queries = torch.arange(q_length, device=device).expand(batch_size, -1)

    def sees(keys: Tensor) -> Tensor:
        return mask_function(rows, torch.zeros_like(rows), queries, keys).expand(batch_size, q_length)

    if not bool(sees(queries).any()):  # a window of 0 tokens, of a kind of layers that there is none of (Qwen2 MoE)
        return torch.empty(0, dtype=torch.bool)
    if not bool(sees(queries).all()) or bool(
        (sees((queries + 1).clamp(max=q_length - 1)) & (queries + 1 < q_length)).any()
    ):
        raise UserError(f"{name} asks for attention that is not causal, or in which a token does not see itself.")
    first = _search(sees, queries)
    if not bool((first == first[:1]).all()):
        raise UserError(f"{name}: windows need one document each here, the same in every row.")
    return None if not bool(first.any()) else first[0].cpu()[None, None, :, None]


def check_unread(name: str, mask_function: Callable[..., Tensor], options: Mapping[str, object]) -> None:
    """Raise UserError where a family wants a mask even if it is simply causal: its layers choose keys by it.

    options: what transformers hands to a mask function, `allow_is_causal_skip` among it.
    """
    if mask_function is causal_mask_function and options.get("allow_is_causal_skip") is False:
        raise UserError(f"{name} reads the attention mask by itself.")


def _search(sees: Callable[[Tensor], Tensor], queries: Tensor) -> Tensor:
    """The first key seen by each query, by bisection between key 0 and the query itself."""
    low, high = torch.zeros_like(queries), queries.clone()
    while bool((low < high).any()):
        middle = (low + high) // 2
        seen = sees(middle)
        high = torch.where(seen, middle, high)
        low = torch.where(seen, low, torch.minimum(middle + 1, high))
    return high
