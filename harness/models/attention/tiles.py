"""Causal attention whose positions differ by region of the score matrix: exact, in memory linear in the length.

The score matrix is walked in blocks of query rows. In a block, each region is cut into at most three tiles (a left
edge, a full middle, a right edge); PyTorch's fused attention returns the output and the log-sum-exp of each tile, and
tiles are merged exactly (harness.models.attention.merging). Where the flash kernel runs, which knows bands, blocks end
where an edge changes how it moves: a few calls for thousands of rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.methods.attention.regions import Region
from harness.models.attention.capped import capped
from harness.models.attention.flash import flash, has_flash, is_small
from harness.models.attention.fused import Piece, fused, masked, widened
from harness.models.attention.merging import merged
from harness.models.attention.rotation import LayerRotation, Table
from harness.models.attention.row_blocks import even, straight

BLOCK_ROWS = {"cpu": 256, "cuda": 1024}  # more rows: fewer launches, larger masked edges
STRAIGHT_ROWS = 16_384  # where no edge is masked; more rows: more memory while pieces are merged


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


def parts(regions: Sequence[Region], rotation: LayerRotation | None, like: Tensor) -> list[Part]:
    """Regions made ready for a layer that rotates by `rotation`, on the device of `like`.

    Regions that hold the same array of positions share one table.
    """
    tables: dict[int, Table] = {}

    def table(positions: NDArray[np.float64]) -> Table | None:
        if rotation is not None and id(positions) not in tables:
            tables[id(positions)] = rotation.table(positions, like)
        return tables.get(id(positions))

    return [
        Part(region.begin, region.end, table(region.query_positions), table(region.key_positions)) for region in regions
    ]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    parts: Sequence[Part],
    scale: float,
    *,
    sinks: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Attention output (batch, heads, length, value_dim) in the dtype of `query`.

    query (batch, heads, length, head_dim), key and value (batch, key_heads, length, ...) are not rotated; heads is
    a multiple of key_heads. `sinks` (heads,) are logits without a value; `softcap` caps scores by tanh.
    """
    out = query.new_empty(*query.shape[:3], value.shape[-1])
    keys = _rotated_keys(key, parts)
    for block in _blocks(query, [] if softcap is not None else parts):
        pieces = [
            piece
            for part, rotated in zip(parts, keys, strict=True)
            for piece in _pieces(query, rotated, value, part, block, scale, softcap)
        ]
        out[:, :, block] = merged(pieces, sinks)
    return out


def _blocks(query: Tensor, parts: Sequence[Part]) -> list[slice]:
    length, rows = query.shape[2], BLOCK_ROWS.get(query.device.type, BLOCK_ROWS["cpu"])
    blocks = even(length, rows)
    if not parts or not has_flash(query):
        return blocks
    return straight([(part.begin, part.end) for part in parts], STRAIGHT_ROWS, most=8 + 2 * len(blocks)) or blocks


def _rotated_keys(key: Tensor, parts: Sequence[Part]) -> list[Tensor]:
    distinct = {id(part.key_table): part.key_table for part in parts}
    rotated = {name: _rotated(key, table) for name, table in distinct.items()}
    return [rotated[id(part.key_table)] for part in parts]


def _rotated(states: Tensor, table: Table | None) -> Tensor:
    return states if table is None else table.rotate(states)


def _pieces(
    query: Tensor, key: Tensor, value: Tensor, part: Part, block: slice, scale: float, softcap: float | None
) -> Iterator[Piece]:
    begin, end = part.begin[block], part.end[block]
    cut = tiles(begin, end, bands=has_flash(query))
    rows = _rotated(query[:, :, block], part.query_table and part.query_table[block]) if cut else query
    for tile in cut:
        keys, values = key[:, :, tile.first : tile.last], value[:, :, tile.first : tile.last]
        seen = _seen(begin, end, tile, query.device) if softcap is not None or tile.shape == "masked" else None
        if softcap is None or seen is None:
            yield _attention(rows, keys, values, tile.shape, seen, scale)
        else:
            yield capped(rows, keys, values, seen, scale, softcap)


TileShape = Literal["full", "lower", "upper", "band", "masked"]


class Tile(NamedTuple):
    """Keys first <= j < last of a block of rows: all seen ("full"), or those up to ("lower") or from ("upper") the
    diagonal of a square, or as many of every row, each row's a key further ("band"), or as a mask says ("masked")."""

    first: int
    last: int
    shape: TileShape


def tiles(begin: NDArray[np.int64], end: NDArray[np.int64], *, bands: bool = False) -> list[Tile]:
    """Tiles that cover begin[i] <= key < end[i] of a block's rows, no key of a row twice.

    An edge that moves by one key a row is half a square, which kernels know without a mask; with `bands` two such
    edges are one tile.
    """
    some = end > begin
    if not some.any():
        return []
    first, last = int(begin[some].min()), int(end[some].max())
    left, right = bool((np.diff(begin) == 1).all()), bool((np.diff(end) == 1).all())
    if bands and left and right:  # one row is a band, too
        return [Tile(first, last, "band")]
    full_first = int(begin[-1]) + 1 if left else int(begin.max())
    full_last = int(end[0]) - 1 if right else int(end.min())
    if full_first > full_last:
        return [Tile(first, last, "masked")]
    cut = [
        Tile(first, full_first, "upper" if left else "masked"),
        Tile(full_first, full_last, "full"),
        Tile(full_last, last, "lower" if right else "masked"),
    ]
    return [tile for tile in cut if tile.first < tile.last]


def _seen(begin: NDArray[np.int64], end: NDArray[np.int64], tile: Tile, device: torch.device) -> Tensor:
    keys = torch.arange(tile.first, tile.last, device=device)
    edges = torch.from_numpy(np.stack((begin, end))).to(device, non_blocking=True)[..., None]
    return (keys >= edges[0]) & (keys < edges[1])


def _attention(query: Tensor, key: Tensor, value: Tensor, shape: TileShape, seen: Tensor | None, scale: float) -> Piece:
    """Output and log-sum-exp of one tile; rows that see no key of it get 0 and -inf."""
    width = value.shape[-1]
    channels = -(-max(query.shape[-1], width) // 8) * 8  # fused kernels want equal widths, multiples of 8
    query, key, value = (widened(x, channels) for x in (query, key, value))
    if seen is not None:
        output, lse = masked(query, key, value, seen, scale)
    elif shape == "band":
        output, lse = flash(query, key, value, scale, band=key.shape[2] - query.shape[2] + 1)
    elif shape == "upper":  # backwards, the keys from the diagonal are the keys up to it
        output, lse = _unmasked(query.flip(2), key.flip(2), value.flip(2), scale, causal=True)
        output, lse = output.flip(2), lse.flip(2)
    else:
        output, lse = _unmasked(query, key, value, scale, causal=shape == "lower")
    return output[..., :width], lse


def _unmasked(query: Tensor, key: Tensor, value: Tensor, scale: float, *, causal: bool) -> Piece:
    run = flash if has_flash(query) and is_small(query, key, causal=causal) else fused
    return run(query, key, value, scale, causal=causal)
