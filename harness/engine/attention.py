"""Attention of a chunk of queries that ends where the keys end, by fused kernels and without a mask.

Where a layer sees only a window, blocks of rows run over just the keys that they see.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from harness.models.attention.causal import causal_attention
from harness.models.attention.fused import fused, merged
from harness.models.attention.options import check_options
from harness.models.attention.route import Attention

MASKED_ROWS = 1024  # queries of one masked block, where a layer sees only a window


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    first: Tensor | None = None,
    *,
    scaling: float | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """Causal attention of the last `length` positions over all keys, called as transformers calls it.

    query (batch, heads, length, channels), key and value (batch, key_heads, keys, channels), first (1, 1, length, 1)
    the first key that each query sees, None: all; output (batch, length, heads, channels).
    Raises LookupError for options that ask for anything else.
    """
    check_options(module, query, first, options)
    if first is not None:
        return windowed(query, key, value, first, scaling).transpose(1, 2).contiguous(), None
    if query.shape[2] == key.shape[2]:
        return causal_attention(module, query, key, value, scaling)
    return after_past(query, key, value, scaling).transpose(1, 2).contiguous(), None


# A compiled layer binds scaled_dot_product_attention to the flash kernel, on Hopper the slower one: there it stays out.
_BY_DEVICE = {"cuda": torch.compiler.disable(attend)}


def attention_on(device: torch.device) -> Attention:
    """`attend` as a kind of device runs it fastest."""
    return _BY_DEVICE.get(device.type, attend)


def after_past(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """Causal attention (batch, heads, queries, channels) of a chunk of queries that ends where the keys end.

    query (batch, heads, queries, channels), key and value (batch, key_heads, keys, channels). Two exact
    pieces merged by their log-sum-exp: all earlier keys, unmasked, and the chunk's own, causal.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    past = key.shape[2] - query.shape[2]
    before = fused(query, key[:, :, :past], value[:, :, :past], scale)
    own = fused(query, key[:, :, past:], value[:, :, past:], scale, causal=True)
    return merged([before, own]).to(query.dtype)


@torch.compiler.disable  # plans its blocks from numbers in tensors
def windowed(query: Tensor, key: Tensor, value: Tensor, first: Tensor, scale: float | None) -> Tensor:
    """Attention (batch, heads, queries, channels) of queries that see keys [first, own position], in blocks of rows.

    query (batch, heads, queries, channels), key and value (batch, key_heads, keys, channels), first (1, 1, queries, 1).
    """
    past = key.shape[2] - query.shape[2]
    groups = query.shape[1] // key.shape[1]
    out = query.new_empty(*query.shape[:3], value.shape[-1])
    starts = first.flatten()
    for begin in range(0, query.shape[2], MASKED_ROWS):
        end = min(begin + MASKED_ROWS, query.shape[2])
        low = int(starts[begin:end].min())
        keys = torch.arange(low, past + end, device=query.device)
        rows = torch.arange(past + begin, past + end, device=query.device)[:, None]
        seen = (keys >= starts[begin:end, None].to(query.device)) & (keys <= rows)
        keys_seen, values_seen = (_repeated(x[:, :, low : past + end], groups) for x in (key, value))
        out[:, :, begin:end] = scaled_dot_product_attention(
            query[:, :, begin:end], keys_seen, values_seen, attn_mask=seen, scale=scale
        )
    return out


def _repeated(x: Tensor, groups: int) -> Tensor:
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)
