"""Attention of a chunk of queries that ends where the keys end, by fused kernels and without a mask.

Where a layer sees only a window, blocks of rows run over just the keys that they see.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from harness.models.attention.capped import capped
from harness.models.attention.causal import causal_attention
from harness.models.attention.fused import fused, masked, widened
from harness.models.attention.merging import merged
from harness.models.attention.options import check_options
from harness.models.attention.route import Attention
from harness.models.checkpoint.families import SINKS, SOFTCAP

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
    check_options(module, query, first, options, whole=True)
    sinks, softcap = options.get(SINKS), options.get(SOFTCAP)
    assert sinks is None or isinstance(sinks, Tensor)
    assert softcap is None or isinstance(softcap, float)
    if first is None and softcap is not None:
        first = query.new_zeros(query.shape[2], dtype=torch.int64)
    if first is not None:
        return windowed(query, key, value, first, scaling, sinks, softcap).transpose(1, 2).contiguous(), None
    if query.shape[2] == key.shape[2] and sinks is None:
        return causal_attention(module, query, key, value, scaling)
    return after_past(query, key, value, scaling, sinks).transpose(1, 2).contiguous(), None


# A compiled layer binds scaled_dot_product_attention to the flash kernel, on Hopper the slower one: there it stays out.
_BY_DEVICE = {"cuda": torch.compiler.disable(attend)}


def attention_on(device: torch.device) -> Attention:
    """`attend` as a kind of device runs it fastest."""
    return _BY_DEVICE.get(device.type, attend)


def after_past(query: Tensor, key: Tensor, value: Tensor, scale: float | None, sinks: Tensor | None = None) -> Tensor:
    """Causal attention (batch, heads, queries, channels) of a chunk of queries that ends where the keys end.

    query (batch, heads, queries, channels), key and value (batch, key_heads, keys, channels), whose channels may
    differ; `sinks` (heads,) are logits without a value. Two exact pieces merged by their log-sum-exp: all earlier
    keys, unmasked, and the chunk's own, causal.
    """
    scale, width = query.shape[-1] ** -0.5 if scale is None else scale, value.shape[-1]
    query, key, value = _equally_wide(query, key, value)
    past = key.shape[2] - query.shape[2]
    pieces = [fused(query, key[:, :, past:], value[:, :, past:], scale, causal=True)]
    if past:
        pieces.insert(0, fused(query, key[:, :, :past], value[:, :, :past], scale))
    return merged(pieces, sinks).to(query.dtype)[..., :width]


def _equally_wide(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As fused kernels want them: of one width, where multi-latent attention has two."""
    if key.shape[-1] == value.shape[-1]:
        return query, key, value
    width = -(-max(key.shape[-1], value.shape[-1]) // 8) * 8
    return widened(query, width), widened(key, width), widened(value, width)


@torch.compiler.disable  # plans its blocks from numbers in tensors
def windowed(
    query: Tensor, key: Tensor, value: Tensor, first: Tensor, scale: float | None, sinks: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:  # fmt: skip
    """Attention (batch, heads, queries, channels) of queries that see keys [first, own position], in blocks of rows.

    query (batch, heads, queries, channels), key and value (batch, key_heads, keys, channels), first (1, 1, queries, 1),
    `sinks` (heads,) logits without a value, `softcap` what caps scores.
    """
    past = key.shape[2] - query.shape[2]
    out = query.new_empty(*query.shape[:3], value.shape[-1])
    starts = first.flatten()
    for begin in range(0, query.shape[2], MASKED_ROWS):
        end = min(begin + MASKED_ROWS, query.shape[2])
        low = int(starts[begin:end].min())
        keys = torch.arange(low, past + end, device=query.device)
        rows = torch.arange(past + begin, past + end, device=query.device)[:, None]
        seen = (keys >= starts[begin:end, None].to(query.device)) & (keys <= rows)
        states = query[:, :, begin:end], key[:, :, low : past + end], value[:, :, low : past + end]
        if softcap is not None:
            out[:, :, begin:end] = merged([capped(*states, seen, scale or query.shape[-1] ** -0.5, softcap)], sinks)
        elif sinks is not None:
            out[:, :, begin:end] = _sinking(*states, seen, scale, sinks)
        else:
            out[:, :, begin:end] = _seeing(*states, seen, scale)
    return out


def _seeing(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scale: float | None) -> Tensor:
    key, value = (_repeated(x, query.shape[1] // x.shape[1]) for x in (key, value))
    return scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scale)


def _sinking(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scale: float | None, sinks: Tensor) -> Tensor:
    scale, width = query.shape[-1] ** -0.5 if scale is None else scale, value.shape[-1]
    return merged([masked(*_equally_wide(query, key, value), seen, scale)], sinks)[..., :width]


def _repeated(x: Tensor, groups: int) -> Tensor:
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)
