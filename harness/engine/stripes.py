"""How a window is dealt to several processes: in rounds of two stripes a rank, from both ends.

Under causal attention the first stripe of a round and the last together cost what every other pair costs, so that no
rank waits. Pairs of stripes: The Llama 3 Herd of Models, arXiv:2407.21783, section 3.3.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stripes:
    """How a window of `length` tokens is dealt to `ranks` processes, in `rounds` of two stripes each of `size` tokens.

    The last stripes may reach beyond the window: what stands there is computed and thrown away, and as nothing before
    it attends to it, it changes nothing.
    """

    length: int
    ranks: int
    rounds: int

    @classmethod
    def of(cls, length: int, ranks: int, largest: int) -> "Stripes":
        """As few rounds as let a rank run `largest` tokens at a time."""
        return cls(length, ranks, -(-length // (ranks * largest)))

    @property
    def size(self) -> int:
        """Tokens of a stripe."""
        return -(-self.length // (2 * self.ranks * self.rounds))

    @property
    def padded(self) -> int:
        """Tokens of all stripes."""
        return 2 * self.ranks * self.rounds * self.size

    def begins(self, rank: int, round_: int) -> tuple[int, int]:
        """The first tokens of the two stripes of a rank in a round."""
        first = 2 * self.ranks * round_
        return (first + rank) * self.size, (first + 2 * self.ranks - 1 - rank) * self.size

    def all_begins(self, rank: int) -> list[int]:
        """The first token of every stripe of a rank, in the order in which it holds them."""
        return [begin for round_ in range(self.rounds) for begin in self.begins(rank, round_)]

    def owner(self, number: int) -> tuple[int, int]:
        """Whose the stripe is that begins at token `number` * size, and its place among those of this rank."""
        round_, place = divmod(number, 2 * self.ranks)
        return (place, 2 * round_) if place < self.ranks else (2 * self.ranks - 1 - place, 2 * round_ + 1)

    def before(self, rank: int, token: int) -> int:
        """How many of the tokens that a rank holds, which are in their order, lie before `token`."""
        return sum(min(max(token - begin, 0), self.size) for begin in self.all_begins(rank))

    def first_run(self, rank: int, wanted: int) -> int:
        """From which of its tokens on a rank runs a layer of which only what stands from `wanted` on is wanted.

        In the round of `wanted` every rank runs one token at least, since all take part in its exchange.
        """
        end = 2 * self.size * (wanted // (2 * self.ranks * self.size) + 1)
        return min(self.before(rank, wanted), end - 1)

    def own(self, rank: int) -> Tensor:
        """The tokens of a rank, int64 (2 * rounds * size,); the window's last stands for those beyond it."""
        tokens = torch.tensor(self.all_begins(rank))[:, None] + torch.arange(self.size)
        return tokens.flatten().clamp(max=self.length - 1)


def in_order(parts: Sequence[Tensor], stripes: Stripes) -> Tensor:
    """What every rank has of its tokens, (batch, 2 * rounds * size, ...) each, as (batch, length, ...) of a window."""
    placed = parts[0].new_empty(len(parts[0]), stripes.padded, *parts[0].shape[2:])
    for rank, part in enumerate(parts):
        for begin, own in zip(stripes.all_begins(rank), part.split(stripes.size, dim=1), strict=True):
            placed[:, begin : begin + stripes.size] = own
    return placed[:, : stripes.length]
