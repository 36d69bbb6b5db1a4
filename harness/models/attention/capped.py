"""Attention whose scores are capped before the softmax, softcap x tanh(score / softcap) (Gemma 2).

Fused kernels know no such function, so that scores are written out, for a slice of the keys at a time.
"""

import torch
from torch import Tensor

from harness.models.attention.fused import Piece

KEYS = 1024  # of a slice


def capped(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scale: float, softcap: float) -> Piece:
    """Attention over the keys that each query sees, `seen` (queries, keys), as a piece in float32 or better.

    query (batch, heads, queries, channels), key and value (batch, key_heads, keys, ...), heads a multiple of
    key_heads. Rows that see no key get 0 and -inf. Gemma 2, arXiv:2408.00118, section 2.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    grouped = query.to(dtype).unflatten(1, (key.shape[1], -1)) * scale  # (batch, key_heads, group, queries, channels)
    output = grouped.new_zeros(*grouped.shape[:-1], value.shape[-1])
    total = grouped.new_full(grouped.shape[:-1], -torch.inf)  # log-sum-exp of the slices so far
    for begin in range(0, key.shape[2], KEYS):
        keys, values = (states[:, :, None, begin : begin + KEYS].to(dtype) for states in (key, value))
        scores = softcap * torch.tanh(grouped @ keys.transpose(-1, -2) / softcap)
        scores = scores.masked_fill(~seen[:, begin : begin + KEYS], -torch.inf)
        before, total = total, torch.logaddexp(total, scores.logsumexp(dim=-1))
        finite = total.masked_fill(total == -torch.inf, 0)[..., None]
        output = output * torch.exp(before[..., None] - finite) + torch.exp(scores - finite) @ values
    return output.flatten(1, 2), total.flatten(1, 2)
