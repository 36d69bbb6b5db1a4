"""Causal attention under an encoding, in blocks of queries: memory is linear in the length."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from harness.methods.encoding.modules.base import Block, EncodingModule

SCORES_AT_ONCE = 2**22  # of one head of one sequence
LEAST_QUERIES = 64


def attend(query: Tensor, key: Tensor, value: Tensor, encoding: EncodingModule, prepared: object, layer: int) -> Tensor:
    """(rows, heads, length, head_dim) in and out; softmax in float32. Half of the scores are masked."""
    length = query.shape[2]
    if not encoding.blockwise:
        rotated = encoding.rotate(query, key, prepared, Block(0, length, 0))
        return scaled_dot_product_attention(*rotated, value, is_causal=True)
    queries = int(min(max(LEAST_QUERIES, SCORES_AT_ONCE // length), encoding.most_queries))
    done = []
    for begin in range(0, length, queries):
        end = min(begin + queries, length)
        index = torch.arange(begin, end, device=query.device)
        first = encoding.first_seen(index)
        block = Block(begin, end, 0 if first is None else int(first[0]))
        rotated_query, rotated_key = encoding.rotate(
            query[:, :, begin:end], key[:, :, block.low : end], prepared, block
        )
        scores = _scores(rotated_query, rotated_key, encoding.bias(prepared, block, layer), encoding.linear)
        keys = torch.arange(block.low, end, device=query.device)
        hidden = keys > index[:, None] if first is None else (keys > index[:, None]) | (keys < first[:, None])
        seen = value[:, :, block.low : end]
        if encoding.linear:
            done.append((scores.masked_fill(hidden, 0) @ seen.float()).to(value.dtype))
        else:
            done.append(scores.masked_fill(hidden, -torch.inf).softmax(-1).to(value.dtype) @ seen)
    return torch.cat(done, dim=2)


def _scores(query: Tensor, key: Tensor, bias: Tensor | None, linear: bool) -> Tensor:
    scores = (query @ key.transpose(-1, -2)).float()
    if not linear:
        scores = scores * query.shape[-1] ** -0.5
    return scores if bias is None else scores + bias.float()
