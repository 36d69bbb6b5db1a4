"""PyTorch's fused attention with its log-sum-exp, by which pieces over disjoint sets of keys can be merged."""

import torch
from torch import Tensor
from torch.nn.functional import pad

Piece = tuple[Tensor, Tensor]  # output (batch, heads, queries, channels) and log-sum-exp (batch, heads, queries)


def fused(query: Tensor, key: Tensor, value: Tensor, scale: float, *, causal: bool = False) -> Piece:
    """Attention of all queries over all keys, or, `causal`, of each over the keys up to its own, as a `Piece`.

    query (batch, heads, queries, channels), key and value (batch, key_heads, keys, channels), heads a multiple of
    key_heads; `causal` needs as many queries as keys. On a GPU in half precision through cuDNN, whose kernel reaches
    about twice the speed of the flash kernel on Hopper.
    """
    if query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, is_causal=causal, scale=scale
        )[:2]
        return out, lse
    if query.dtype in (torch.float16, torch.bfloat16) and query.shape[-1] <= 128:
        out, lse = torch.ops.aten._scaled_dot_product_cudnn_attention(
            query, key, value, None, compute_log_sumexp=True, is_causal=causal, scale=scale
        )[:2]
        return out, lse.reshape(lse.shape[:3])
    key, value = _for_each_head(query, key), _for_each_head(query, value)
    out, lse = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, None, compute_log_sumexp=True, is_causal=causal, scale=scale
    )[:2]
    return out, lse[..., : query.shape[2]]  # its rows are padded to a multiple of 32


def widened(states: Tensor, channels: int) -> Tensor:
    """Queries, keys or values (..., channels) with zeros for the channels that are missing."""
    missing = channels - states.shape[-1]
    return pad(states, (0, missing)) if missing else states


def masked(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scale: float) -> Piece:
    """As `fused`, over the keys that each query sees, `seen` (queries, keys); rows that see none get 0 and -inf."""
    bias = torch.zeros_like(seen, dtype=query.dtype).masked_fill_(~seen, -torch.inf)
    if query.device.type == "cpu":
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, attn_mask=bias, scale=scale
        )[:2]
    else:
        output, lse = torch.ops.aten._scaled_dot_product_efficient_attention(
            query,
            _for_each_head(query, key),
            _for_each_head(query, value),
            _aligned(bias, query),
            compute_log_sumexp=True,
            scale=scale,
        )[:2]
        lse = lse[..., : query.shape[2]]  # kernels may pad their rows
    blind = ~seen.any(dim=-1)
    return output.masked_fill(blind[:, None], 0), lse.masked_fill(blind, -torch.inf)


def _aligned(bias: Tensor, query: Tensor) -> Tensor:
    """The bias of every head, with rows that begin at addresses that the kernel accepts."""
    columns = bias.shape[-1]
    aligned = pad(bias, (0, -columns % 16))[:, :columns]
    return aligned.expand(*query.shape[:2], -1, -1)


def _for_each_head(query: Tensor, states: Tensor) -> Tensor:
    return states.repeat_interleave(query.shape[1] // states.shape[1], dim=1)
