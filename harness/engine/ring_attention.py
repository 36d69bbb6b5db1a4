"""Attention of a rank's stripes of a window to the keys and values of all ranks, block by block.

Every block gives an output and its log-sum-exp; these are merged exactly (harness.models.attention.merging).
"""

import torch
from torch import Tensor, nn

from harness.engine.ring import Block, Ring
from harness.engine.ring_windows import attend_in_windows
from harness.models.attention.fused import Piece, fused
from harness.models.attention.merging import joined
from harness.models.attention.options import check_options

PIECES = 4  # outputs that wait to be merged


@torch.compiler.disable
def attend(
    ring: Ring,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    first: Tensor | None = None,
    *,
    scaling: float | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """Causal attention of the last tokens of a rank's round, called by all ranks as transformers calls it.

    query (batch, heads, rows, channels), key and value (batch, key_heads, own tokens to the end of the round,
    channels), first (1, 1, rows, ...) as of `harness.engine.ring_windows`, None: all keys before a query are seen;
    output (batch, rows, heads, channels).
    """
    check_options(module, query, None if first is None else first[..., :1], options)
    if key.shape[-1] != value.shape[-1]:  # before anything is on its way
        raise LookupError(f"{type(module).__name__} has values of another width than its keys")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    keys, values = key.transpose(1, 2), value.transpose(1, 2)
    if first is not None:
        return attend_in_windows(ring, query, keys, values, first, scale), None
    rows = _Rows(ring, query, keys.shape[1], scale)
    for block in ring.blocks(keys, values, rows.round):
        rows.attend_to(block)
    rows.attend_to_themselves(key, value)
    return rows.merged(value.shape[-1]), None


class _Rows:
    """Queries of the two stripes of a round, the last of each where not all are wanted, and what they have seen."""

    def __init__(self, ring: Ring, query: Tensor, own: int, scale: float) -> None:
        self.ring, self.query, self.scale, size = ring, query, scale, ring.stripes.size
        self.round = own // (2 * size) - 1
        early = max(0, query.shape[2] - size)
        self.stripes = [slice(0, early), slice(early, query.shape[2])]
        self.begins = [own - size - early, own - (query.shape[2] - early)]  # among own tokens
        self.pieces: list[list[Piece]] = [[], []]

    def attend_to(self, block: Block) -> None:
        """A block of keys, as far as they lie before the queries."""
        me, end = self.ring.ranks.rank, block.begin + block.keys.shape[1]
        seen = self.begins if block.rank == me else self.ring.seen(me, self.round, block.rank)
        if self.stripes[0].stop and seen[0] >= end:
            output, lse = self._fused(slice(None), block, end)
            for number, rows in enumerate(self.stripes):
                self._add(number, (output[:, :, rows], lse[:, :, rows]))
            return
        for number, rows in enumerate(self.stripes):
            last = min(end, seen[number])
            if rows.stop > rows.start and last > block.begin:
                self._add(number, self._fused(rows, block, last))

    def _fused(self, rows: slice, block: Block, last: int) -> Piece:
        keys, values = (x[:, : last - block.begin].transpose(1, 2) for x in (block.keys, block.values))
        return fused(self.query[:, :, rows], keys, values, self.scale)

    def attend_to_themselves(self, key: Tensor, value: Tensor) -> None:
        """The keys of the same tokens as the queries, each up to its own."""
        for number, (rows, begin) in enumerate(zip(self.stripes, self.begins, strict=True)):
            if count := rows.stop - rows.start:
                own = slice(begin, begin + count)
                states = (self.query[:, :, rows], key[:, :, own], value[:, :, own])
                self._add(number, fused(*states, self.scale, causal=True))

    def _add(self, number: int, piece: Piece) -> None:
        waiting = self.pieces[number]
        if len(waiting) == PIECES:
            waiting[:] = [joined(waiting)]
        waiting.append(piece)

    def merged(self, channels: int) -> Tensor:
        """The output (batch, rows, heads, channels) over all keys."""
        batch, heads, length, _ = self.query.shape
        out = self.query.new_empty(batch, length, heads, channels)
        for rows, waiting in zip(self.stripes, self.pieces, strict=True):
            if waiting:
                joined(waiting, out=out[:, rows].transpose(1, 2))
        return out
