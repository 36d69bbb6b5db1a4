"""Causal attention whose positions differ by region of the score matrix: exact, in memory linear in the length.

The score matrix is walked in blocks of query rows. In a block, each region is cut into at most three tiles (a masked
left edge, a full middle, a masked right edge); PyTorch's fused attention returns the output and the log-sum-exp of
each tile, and tiles are merged exactly: softmax over all keys = sum over tiles of exp(lse_tile - lse) output_tile.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from harness.methods.regions import Region

BLOCK_ROWS = {"cpu": 256, "cuda": 1024}  # more rows: fewer launches, larger masked edges


@dataclass(frozen=True)
class LayerTurn:
    """How a layer rotates its queries and keys at position p: pair m by the angle p x inv_freq[m]."""

    inv_freq: tuple[float, ...]  # radians a token
    first: int  # first rotary channel of a head
    interleaved: bool  # pairs (2m, 2m + 1) of the rotary channels, else (m, m + their number / 2)
    scaling: float = 1.0  # multiplies cosines and sines

    def table(self, positions: NDArray[np.float64], like: Tensor) -> "Table":
        """Cosines and sines of the positions (tokens), from float64 angles, in float32 or better."""
        angles = torch.from_numpy(np.outer(positions, self.inv_freq)).to(like.device)
        dtype = torch.promote_types(like.dtype, torch.float32)
        cos, sin = angles.cos() * self.scaling, angles.sin() * self.scaling
        return Table(cos.to(dtype), sin.to(dtype), self.first, self.interleaved)


@dataclass(frozen=True)
class Table:
    """Cosines and sines, (length, pairs) each, and the channels that they turn."""

    cos: Tensor
    sin: Tensor
    first: int
    interleaved: bool

    def __getitem__(self, rows: slice) -> "Table":
        return Table(self.cos[rows], self.sin[rows], self.first, self.interleaved)

    def turn(self, states: Tensor) -> Tensor:
        """Queries or keys (batch, heads, length, head_dim) turned; the result is in the tables' dtype."""
        last = self.first + 2 * self.cos.shape[-1]
        states = states.to(self.cos.dtype)
        rotary = states[..., self.first : last]
        a, b = (rotary[..., 0::2], rotary[..., 1::2]) if self.interleaved else rotary.chunk(2, dim=-1)
        turned = (a * self.cos - b * self.sin, b * self.cos + a * self.sin)
        joined = torch.stack(turned, dim=-1).flatten(-2) if self.interleaved else torch.cat(turned, dim=-1)
        if joined.shape == states.shape:
            return joined
        return torch.cat((states[..., : self.first], joined, states[..., last:]), dim=-1)


@dataclass(frozen=True)
class Part:
    """A region made ready for one layer: rows' key intervals, and tables (None: the layer does not rotate)."""

    begin: NDArray[np.int64]  # (length,)
    end: NDArray[np.int64]
    query_table: Table | None
    key_table: Table | None

    def seeing_from(self, first_seen: NDArray[np.int64]) -> "Part":
        """The part in a layer that hides keys before `first_seen` (length,) from each query."""
        return replace(self, begin=np.maximum(self.begin, first_seen))


def parts(regions: Sequence[Region], turn: LayerTurn | None, like: Tensor) -> list[Part]:
    """Regions made ready for a layer that turns by `turn`, on the device of `like`.

    Regions that hold the same array of positions share one table.
    """
    tables: dict[int, Table] = {}

    def table(positions: NDArray[np.float64]) -> Table | None:
        if turn is not None and id(positions) not in tables:
            tables[id(positions)] = turn.table(positions, like)
        return tables.get(id(positions))

    return [
        Part(region.begin, region.end, table(region.query_positions), table(region.key_positions)) for region in regions
    ]


@torch.compiler.disable  # tiles are planned in NumPy: a compiled model calls this between its graphs
def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    parts: Sequence[Part],
    scale: float,
    *,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention output (batch, heads, length, value_dim) in the dtype of `query`.

    query (batch, heads, length, head_dim), key and value (batch, key_heads, length, ...) are not rotated; heads is
    a multiple of key_heads. `sinks` (heads,) are logits without a value.
    """
    length = query.shape[2]
    out = query.new_empty(*query.shape[:3], value.shape[-1])
    keys = _turned_keys(key, parts)
    rows = BLOCK_ROWS.get(query.device.type, BLOCK_ROWS["cpu"])
    for begin in range(0, length, rows):
        block = slice(begin, min(begin + rows, length))
        pieces = [
            piece
            for part, turned in zip(parts, keys, strict=True)
            for piece in _pieces(query, turned, value, part, block, scale)
        ]
        out[:, :, block] = _merged(pieces, sinks).to(out.dtype)
    return out


def _turned_keys(key: Tensor, parts: Sequence[Part]) -> list[Tensor]:
    distinct = {id(part.key_table): part.key_table for part in parts}
    turned = {name: _turned(key, table) for name, table in distinct.items()}
    return [turned[id(part.key_table)] for part in parts]


def _turned(states: Tensor, table: Table | None) -> Tensor:
    return states if table is None else table.turn(states).to(states.dtype)


Piece = tuple[Tensor, Tensor]  # output (batch, heads, rows, value_dim) and log-sum-exp (batch, heads, rows)


def _pieces(query: Tensor, key: Tensor, value: Tensor, part: Part, block: slice, scale: float) -> Iterator[Piece]:
    begin, end = part.begin[block], part.end[block]
    cut = tiles(begin, end)
    rows = _turned(query[:, :, block], part.query_table and part.query_table[block]) if cut else query
    for first, last, masked in cut:
        seen = _seen(begin, end, first, last, query.device) if masked else None
        yield _attention(rows, key[:, :, first:last], value[:, :, first:last], seen, scale)


def tiles(begin: NDArray[np.int64], end: NDArray[np.int64]) -> list[tuple[int, int, bool]]:
    """Ranges of keys (first, last, masked) that cover begin[i] <= key < end[i] of a block's rows, none twice.

    A range that is not masked is seen by every row.
    """
    some = end > begin
    if not some.any():
        return []
    first, last = int(begin[some].min()), int(end[some].max())
    full_first, full_last = int(begin.max()), int(end.min())
    if full_first >= full_last:
        return [(first, last, True)]
    ranges = [(first, full_first, True), (full_first, full_last, False), (full_last, last, True)]
    return [(a, b, masked) for a, b, masked in ranges if a < b]


def _seen(begin: NDArray[np.int64], end: NDArray[np.int64], first: int, last: int, device: torch.device) -> Tensor:
    keys = torch.arange(first, last, device=device)
    edges = torch.from_numpy(np.stack((begin, end))).to(device, non_blocking=True)[..., None]
    return (keys >= edges[0]) & (keys < edges[1])


def _merged(pieces: Sequence[Piece], sinks: Tensor | None) -> Tensor:
    lse = torch.stack([piece[1] for piece in pieces])
    total = torch.logsumexp(lse, dim=0)
    if sinks is not None:
        total = torch.logaddexp(total, sinks.to(total.dtype)[None, :, None])
    weights = torch.exp(lse - total)[..., None]
    merged = torch.zeros_like(pieces[0][0], dtype=lse.dtype)
    for (output, _), weight in zip(pieces, weights, strict=True):
        merged.addcmul_(output.to(lse.dtype), weight)
    return merged


def _attention(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, scale: float) -> Piece:
    """Output and log-sum-exp of one tile; rows that see no key of it get 0 and -inf."""
    width = value.shape[-1]
    channels = -(-max(query.shape[-1], width) // 8) * 8  # fused kernels want equal widths, multiples of 8
    query, key, value = (_widened(x, channels) for x in (query, key, value))
    bias = None if seen is None else torch.zeros_like(seen, dtype=query.dtype).masked_fill_(~seen, -torch.inf)
    output, lse = _fused(query, key, value, bias, scale)
    output = output[..., :width]
    if seen is None:
        return output, lse
    blind = ~seen.any(dim=-1)
    return output.masked_fill(blind[:, None], 0), lse.masked_fill(blind, -torch.inf)


def _widened(states: Tensor, channels: int) -> Tensor:
    missing = channels - states.shape[-1]
    return pad(states, (0, missing)) if missing else states


def _fused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float) -> Piece:
    if query.device.type == "cpu":
        outputs = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, attn_mask=bias, scale=scale
        )
        return outputs[0], outputs[1]
    if query.device.type == "cuda":
        return _fused_cuda(query, key, value, bias, scale)
    return _unfused(query, key, value, bias, scale)


def _fused_cuda(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float) -> Piece:
    if bias is None and query.dtype in (torch.float16, torch.bfloat16) and query.shape[-1] <= 256:
        outputs = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, scale=scale)
        return outputs[0], outputs[1][..., : query.shape[2]]
    if query.dtype == torch.float64:
        return _unfused(query, key, value, bias, scale)
    key, value = _for_each_head(query, key), _for_each_head(query, value)
    outputs = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, _aligned(bias, query), compute_log_sumexp=True, scale=scale
    )
    return outputs[0], outputs[1][..., : query.shape[2]]  # kernels may pad their rows


def _aligned(bias: Tensor | None, query: Tensor) -> Tensor | None:
    """The bias of every head, with rows that begin at addresses that the kernel accepts."""
    if bias is None:
        return None
    columns = bias.shape[-1]
    aligned = pad(bias, (0, -columns % 16))[:, :columns]
    return aligned.expand(*query.shape[:2], -1, -1)


def _for_each_head(query: Tensor, states: Tensor) -> Tensor:
    return states.repeat_interleave(query.shape[1] // states.shape[1], dim=1)


def _unfused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float) -> Piece:
    key, value = _for_each_head(query, key), _for_each_head(query, value)
    scores = (query @ key.mT).to(torch.promote_types(query.dtype, torch.float32)) * scale
    scores = scores if bias is None else scores + bias
    lse = torch.logsumexp(scores, dim=-1)
    return (torch.exp(scores - lse[..., None]).to(value.dtype) @ value), lse
