"""Learned absolute positions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.methods.encoding.base import Encoding, Shape

if TYPE_CHECKING:
    from harness.methods.encoding.modules.base import EncodingModule


@dataclass(frozen=True, kw_only=True)
class Learned(Encoding):
    """A learned vector for each position of the trained length, added to the input embedding.

        x_n = E[token_n] + P[n],  P: trained length x hidden size, drawn from N(0, 0.02)
    As in GPT-2 (Radford et al. 2019). There is no vector beyond the trained length: longer windows are refused, unless
    `linear` stretches the table (row n / factor, interpolated between its neighbours, the last row beyond the end).
    """

    name: ClassVar[str] = "learned"
    changes: ClassVar[str] = "the input: a learned vector a position is added"
    source: ClassVar[str] = "GPT-2 (Radford et al. 2019)"
    scalings: ClassVar[tuple[str, ...]] = ("linear",)
    why_not: ClassVar[str] = "it has a table of vectors and no frequencies"

    def reach(self, trained: int) -> int:
        """The rows of the table."""
        return trained

    def module(self, shape: Shape) -> "EncodingModule":
        """The table as an embedding."""
        from harness.methods.encoding.modules.embeddings import LearnedTable
        from harness.methods.encoding.modules.positions import Counted

        return LearnedTable(Counted(), shape.trained, shape.hidden_size)
