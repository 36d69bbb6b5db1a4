"""What an encoding can do to a model: at its input, to queries and keys, to scores. All do nothing by default."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.methods.encoding.modules.positions import Counted, Places


class Block(NamedTuple):
    """Queries [begin, end) and the keys [low, end) that they may see."""

    begin: int
    end: int
    low: int


class EncodingModule(nn.Module):
    """No encoding at all, and what the others build on.

    `prepare` makes, once a forward, what no parameter takes part in; the rest is called layer by layer.
    """

    blockwise = False  # scores are made block by block: there is a bias, or queries and keys are rotated for a block
    most_queries = math.inf  # of a block
    linear = False  # the output is the sum of score times value, without softmax
    stretch = 1.0  # positions are divided by it: position interpolation

    def __init__(self, places: Places | None = None) -> None:
        super().__init__()
        self.places = places or Counted()

    @torch.compiler.disable
    @torch.no_grad()
    def prepare(self, rows: int, length: int, device: torch.device) -> Any:
        """What the calls below need for `rows` windows of `length` tokens: here positions (rows or 1, length)."""
        return self.tables(self.places(rows, length, self.training, device) / self.stretch)

    def tables(self, positions: Tensor) -> Any:
        """What is made of positions, float64 (rows or 1, length)."""
        return positions

    def embed(self, hidden: Tensor, prepared: Any) -> Tensor:
        """The input of the first layer, (rows, length, hidden size)."""
        return hidden

    def rotate(self, query: Tensor, key: Tensor, prepared: Any, block: Block) -> tuple[Tensor, Tensor]:
        """Queries and keys of a block, (rows, heads, tokens, head_dim), rotated or permuted by their positions."""
        return query, key

    def bias(self, prepared: Any, block: Block, layer: int) -> Tensor | None:
        """What is added to the scores of a block, (heads, queries, keys)."""
        return None

    def first_seen(self, queries: Tensor) -> Tensor | None:
        """The first key that each query sees, both by index from 0, (queries,); None: all."""
        return None

    def reset_parameters(self) -> None:
        """Draw initial values."""


def distances(positions: Tensor, block: Block) -> Tensor:
    """i - j of a block's queries and keys, float64 (queries, keys); negative where a key lies ahead."""
    return positions[0, block.begin : block.end, None] - positions[0, None, block.low : block.end]
