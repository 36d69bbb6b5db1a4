"""Keys and values of one window over several processes: they stay where they are and are passed round in blocks.

A rank holds the keys and values of its own tokens, 1/N of them. While it attends to one block, the next is on its way:
in turn i it sends to the rank i places after it and receives from the rank i places before it, so that what it sends is
always its own, and only two blocks of others are held. Blocks that no query of the receiver sees are not sent.

Cost of a round in which a rank runs T tokens, with H heads of queries, K of keys and C channels: every key that
arrives is 4 K C bytes in half precision, and 4 T H C FLOPs are computed with it. The exchange is hidden where the link
is faster than FLOP/s x K / (T H): 18 GB/s at 600 TFLOP/s for T = 8192 of 8B shapes (H / K = 4), whatever length and N.
Blockwise attention passed round: Liu et al. 2023, arXiv:2310.01889; balanced stripes: arXiv:2407.21783, section 3.3.2.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed import Work

from harness.engine.exchange import Message, Ranks, finish
from harness.engine.layered import LayerCache
from harness.engine.stripes import Stripes

BLOCK = {"cpu": 4096, "cuda": 65536}  # keys that are passed on at once: two such blocks are held beside a rank's own


class Block(NamedTuple):
    """Keys and values (batch, keys, key_heads, channels) of a rank, from `begin` on among those that it holds."""

    rank: int
    begin: int
    keys: Tensor
    values: Tensor


class Turn(NamedTuple):
    """One exchange: which of its own tokens a rank sends, and which of the other's it receives; empty: none."""

    to: int
    sent: slice
    source: int
    received: slice


@dataclass
class Ring:
    """What the layers of a window that is dealt in `stripes` share on one rank."""

    stripes: Stripes
    ranks: Ranks
    wanted_from: int = 0  # position in the window: the present layer's output is wanted from there on
    received: dict[int, Tensor] = field(default_factory=dict)  # buffers of blocks

    def seen(self, rank: int, round_: int, other: int) -> tuple[int, int]:
        """How many of the tokens that `other` holds the early and the late stripe of a rank see in a round."""
        size, past = self.stripes.size, 2 * self.stripes.size * round_
        return past + size * (other < rank), past + size + size * (other > rank)

    def wants(self, rank: int, round_: int) -> bool:
        """Whether anything of a rank's round is wanted of the present layer."""
        return self.stripes.before(rank, self.wanted_from) < 2 * self.stripes.size * (round_ + 1)

    def turns(self, round_: int, block: int) -> Iterator[Turn]:
        """The exchanges of a round, in their order."""
        me, size = self.ranks.rank, self.ranks.size
        for distance in range(1, size):
            to, source = (me + distance) % size, (me - distance) % size
            sent = pieces(self.seen(to, round_, me)[1] if self.wants(to, round_) else 0, block)
            received = pieces(self.seen(me, round_, source)[1] if self.wants(me, round_) else 0, block)
            for own, other in zip_longest(sent, received, fillvalue=slice(0, 0)):
                yield Turn(to, own, source, other)

    def blocks(self, keys: Tensor, values: Tensor, round_: int) -> Iterator[Block]:
        """Own keys and values (batch, tokens, key_heads, channels), then those of the others as they come."""
        block = block_of(self.stripes.size, BLOCK[keys.device.type])
        turns = list(self.turns(round_, block))
        works = self._start(turns[0], keys, values, 0) if turns else []
        if self.wants(self.ranks.rank, round_):
            for piece in pieces(keys.shape[1], block):
                yield Block(self.ranks.rank, piece.start, keys[:, piece], values[:, piece])
        for number, turn in enumerate(turns):
            finish(works)
            if number + 1 < len(turns):
                works = self._start(turns[number + 1], keys, values, (number + 1) % 2)
            if turn.received.stop:
                yield Block(turn.source, turn.received.start, *self._places(turn, keys, values, number % 2))

    def _start(self, turn: Turn, keys: Tensor, values: Tensor, buffer: int) -> list[Work]:
        sends: list[Message] = []
        receives: list[Message] = []
        if turn.sent.stop:
            sends = [(turn.to, x[:, turn.sent].contiguous()) for x in (keys, values)]
        if turn.received.stop:
            receives = [(turn.source, x) for x in self._places(turn, keys, values, buffer)]
        return self.ranks.start(sends, receives)

    def _places(self, turn: Turn, keys: Tensor, values: Tensor, buffer: int) -> list[Tensor]:
        """Where the block of a turn arrives."""
        tokens = turn.received.stop - turn.received.start
        return [self._place(2 * buffer + i, x, tokens) for i, x in enumerate((keys, values))]

    def _place(self, number: int, like: Tensor, tokens: int) -> Tensor:
        shape = torch.Size((like.shape[0], tokens, *like.shape[2:]))
        held = self.received.get(number)
        size = shape.numel()
        if held is None or held.dtype != like.dtype or held.numel() < size:
            self.received[number] = held = like.new_empty(size)
        return held[:size].view(shape)


class RingCache(LayerCache):
    """Keys and values that a rank holds of one layer, written round by round, (batch, tokens, key_heads, channels).

    `wanted`: as `Ring.wanted_from`, for a layer of which not all is wanted.
    """

    def __init__(self, length: int, buffers: dict[int, Tensor], first: int = 0, *, ring: Ring, wanted: int) -> None:
        super().__init__(length, buffers, first)
        ring.wanted_from = wanted if first else 0

    @torch.compiler.disable
    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write those of own tokens (batch, heads, tokens, channels); returns all own up to their end."""
        keys, values = super().update(keys.transpose(1, 2), values.transpose(1, 2))
        return keys.transpose(1, 2), values.transpose(1, 2)

    tokens_axis = 1


def block_of(size: int, largest: int) -> int:
    """Keys that are passed on at once, `largest` at most, where a stripe has `size` tokens.

    Whole pairs of stripes, or equal parts of a stripe: the same few shapes come up in all rounds. cuDNN builds a kernel
    for every new shape, which takes longer than running it.
    """
    pair = 2 * size
    return largest // pair * pair if pair <= largest else -(-size // -(-size // largest))


def pieces(tokens: int, block: int) -> list[slice]:
    """The first `tokens` in blocks, the last of which may be shorter."""
    return [slice(*ends) for ends in pairwise([*range(0, tokens, block), tokens])]
