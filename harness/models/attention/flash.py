"""The flash kernel: attention over bands of keys in one call, with nothing to build for a shape that is new.

cuDNN's kernels are faster on Hopper, but each is built, in tenths of a second, for one shape.
"""

import torch
from torch import Tensor

from harness.models.attention.fused import Piece

WIDEST = 256  # channels of a head
BUILT_FOR = 1e12  # floating-point operations of one call from which cuDNN's kernel repays its building in a few passes


def has_flash(query: Tensor) -> bool:
    """Whether the kernel runs on such queries (batch, heads, queries, channels): half precision, GPUs since Ampere."""
    if query.device.type != "cuda" or query.dtype not in (torch.float16, torch.bfloat16):
        return False
    return query.shape[-1] <= WIDEST and torch.cuda.get_device_capability(query.device) >= (8, 0)


def is_small(query: Tensor, key: Tensor, *, causal: bool) -> bool:
    """Whether a call over these states, (batch, heads, tokens, channels) each, does not repay building a kernel."""
    pairs = query[..., 0].numel() * key.shape[2] / (2 if causal else 1)
    return 4 * pairs * query.shape[-1] < BUILT_FOR


def flash(
    query: Tensor, key: Tensor, value: Tensor, scale: float, *, causal: bool = False, band: int | None = None
) -> Piece:
    """Attention of all queries over all keys, or, `causal`, of each over the keys up to its own, as a `Piece`.

    query (batch, heads, queries, channels), key and value (batch, key_heads, keys, channels), all as wide, a multiple
    of 8 channels. `causal` needs as many queries as keys; `band`: query i sees the keys i to i + band - 1, and there
    are queries + band - 1 keys.
    """
    assert band is None or key.shape[2] == query.shape[2] + band - 1, "the last query sees the last key"
    states = (x.transpose(1, 2) for x in (query, key, value))
    left, right = (-1, -1) if band is None else (band - 1, 0)  # keys beside the diagonal that ends in the last corner
    out, lse = torch.ops.aten._flash_attention_forward(
        *states, None, None, query.shape[2], key.shape[2], 0.0, causal, False, scale=scale,
        window_size_left=left, window_size_right=right,
    )[:2]  # fmt: skip
    return out.transpose(1, 2), lse
