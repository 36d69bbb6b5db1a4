"""Encodings that rotate queries and keys: rotations, rotations that decay, permutations."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.methods.encoding.modules.base import Block, EncodingModule
from harness.methods.encoding.modules.positions import Counted, Places

GROWTH = 8.0  # nats that a query may grow by in a block; float16 ends at 11, float32 at 88


def queries_within(log_decays: Iterable[float]) -> int:
    """How many queries a block may hold so that none grows by more than GROWTH; log_decays: of a token, <= 0."""
    return max(1, int(min(GROWTH / max(-min(log_decays), 1e-9), 2**30)))


class Rotation(EncodingModule):
    """Rotary positions, base 10000; channels m and m + d / 2 of a head are a pair."""

    def __init__(self, places: Places, head_dim: int) -> None:
        super().__init__(places)
        self.inv_freq = tuple(10_000.0 ** (-2 * m / head_dim) for m in range(head_dim // 2))

    def tables(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, float32 (rows or 1, 1, length, head_dim)."""
        inv_freq = torch.tensor(self.inv_freq, dtype=torch.float64, device=positions.device)
        angles = (positions[..., None] * inv_freq).repeat(1, 1, 2)[:, None]
        return angles.cos().float(), angles.sin().float()

    def rotate(
        self, query: Tensor, key: Tensor, prepared: tuple[Tensor, Tensor], block: Block
    ) -> tuple[Tensor, Tensor]:
        """Both by their positions, (rows, heads, tokens, head_dim)."""
        cos, sin = prepared
        own, seen = slice(block.begin, block.end), slice(block.low, block.end)
        return rotated(query, cos[:, :, own], sin[:, :, own]), rotated(key, cos[:, :, seen], sin[:, :, seen])


def rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """States (..., head_dim), their pairs m and m + head_dim / 2 rotated, in float32, back in the states' dtype."""
    first, second = states.float().chunk(2, dim=-1)
    return (states.float() * cos + torch.cat((-second, first), dim=-1) * sin).to(states.dtype)


class Decaying(NamedTuple):
    """What xPos makes of positions."""

    cos: Tensor
    sin: Tensor
    positions: Tensor  # float64 (1, length)


class DecayingRotation(EncodingModule):
    """Rotation, and a decay of each pair with the distance, measured from the end of each block of queries.

    From there no key grows and queries grow by no more than a block's decay, which `most_queries` bounds.
    """

    blockwise = True

    def __init__(self, head_dim: int, log_decay: NDArray[np.float64], window: int | None) -> None:
        super().__init__(Counted())
        self.rotation = Rotation(Counted(), head_dim)
        self.log_decay = tuple(log_decay.tolist())  # of a pair, a token
        self.most_queries = queries_within(self.log_decay)
        self.window = window  # tokens of a block of LeX; None: every key is seen

    def tables(self, positions: Tensor) -> Decaying:
        """Cosines, sines and the positions themselves."""
        return Decaying(*self.rotation.tables(positions), positions)

    def rotate(self, query: Tensor, key: Tensor, prepared: Decaying, block: Block) -> tuple[Tensor, Tensor]:
        """Both (rows, heads, tokens, head_dim), rotated, then scaled.

        Queries by exp(decay x (i - end)), keys by exp(decay x (end - j)), decay < 0.
        """
        query, key = self.rotation.rotate(query, key, (prepared.cos, prepared.sin), block)
        log_decay = torch.tensor(2 * self.log_decay, dtype=torch.float64, device=query.device)
        ahead = prepared.positions[0, block.low : block.end] - prepared.positions[0, block.end - 1]  # <= 0
        scale = (ahead[:, None] * log_decay).float()
        grown = query.float() * scale[block.begin - block.low :].exp()
        return grown.to(query.dtype), (key.float() * (-scale).exp()).to(key.dtype)

    def first_seen(self, queries: Tensor) -> Tensor | None:
        """The begin of the block before a query's own, (queries,)."""
        return None if self.window is None else ((queries // self.window - 1) * self.window).clamp(min=0)


class Permuted(NamedTuple):
    """What PermuteFormer makes of positions."""

    order: Tensor  # (heads, length, head_dim): the channel that each channel reads at a position
    positions: Tensor  # float64 (1, length)


class Permutation(EncodingModule):
    """Channels permuted once more at every position; with `log_decays` (of a head, a token) the linear form."""

    blockwise = True

    def __init__(self, permutations: NDArray[np.int64], log_decays: NDArray[np.float64] | None) -> None:
        super().__init__(Counted())
        self.permutations, self.linear = permutations, log_decays is not None
        self.log_decays = None if log_decays is None else tuple(log_decays.tolist())
        if self.log_decays is not None:
            self.most_queries = queries_within(self.log_decays)

    def tables(self, positions: Tensor) -> Permuted:
        """The powers of the permutations at every position."""
        order = powers(self.permutations, positions.shape[1])
        return Permuted(torch.from_numpy(order).to(positions.device), positions)

    def rotate(self, query: Tensor, key: Tensor, prepared: Permuted, block: Block) -> tuple[Tensor, Tensor]:
        """Both (rows, heads, tokens, head_dim), permuted.

        In the linear form positive and scaled by the decay, measured from the end of the block.
        """
        if self.log_decays is None:
            return self._permuted(query, prepared, block.begin), self._permuted(key, prepared, block.low)
        log_decay = torch.tensor(self.log_decays, dtype=torch.float64, device=query.device)[:, None]
        ahead = prepared.positions[0, block.low : block.end] - prepared.positions[0, block.end - 1]
        scale = (ahead * log_decay).float()[..., None]
        query = self._permuted(query.float().relu() + 1e-3, prepared, block.begin)
        key = self._permuted(key.float().relu() + 1e-3, prepared, block.low)
        return query * scale[:, block.begin - block.low :].exp(), key * (-scale).exp()

    def _permuted(self, states: Tensor, prepared: Permuted, begin: int) -> Tensor:
        order = prepared.order[:, begin : begin + states.shape[2]]
        return states.gather(-1, order.expand_as(states))


def powers(permutations: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """0th, 1st, 2nd, ... power of each permutation, (heads, length, head_dim): power n reads channel [h, n, c]."""
    heads, width = permutations.shape
    table = np.broadcast_to(np.arange(width), (heads, 1, width))
    step = permutations[:, None]  # the permutation to the power of the table's length
    while table.shape[1] < length:
        table = np.concatenate([table, np.take_along_axis(step.repeat(table.shape[1], 1), table, 2)], axis=1)
        step = np.take_along_axis(step, step, 2)
    return np.ascontiguousarray(table[:, :length])
