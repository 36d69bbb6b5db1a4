"""Sinusoidal positions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.methods.encoding.base import Encoding, Shape

if TYPE_CHECKING:
    from harness.methods.encoding.modules.base import EncodingModule

SCALINGS = ("linear", "ntk", "abf")


@dataclass(frozen=True, kw_only=True)
class Sinusoidal(Encoding):
    """Sines and cosines of the position, added to the input embedding.

        p[n, 2k] = sin(n / 10000^(2k / D)),  p[n, 2k + 1] = cos(n / 10000^(2k / D)),  x_n = sqrt(D) E[token_n] + p[n]
    with D the model's hidden size. Vaswani et al. 2017, arXiv:1706.03762, section 3.5 and, for sqrt(D), section 3.4.
    Channels lie as [sin | cos] instead of interleaved: the same up to an order that the weights learn.
    """

    name: ClassVar[str] = "sinusoidal"
    changes: ClassVar[str] = "the input: sines and cosines of the position are added"
    source: ClassVar[str] = "arXiv:1706.03762"
    scalings: ClassVar[tuple[str, ...]] = SCALINGS
    why_not: ClassVar[str] = "there is no rotation to scale, only the frequencies of its table"

    def module(self, shape: Shape) -> "EncodingModule":
        """The table, made for every length."""
        from harness.methods.encoding.modules.embeddings import SinusoidalTable
        from harness.methods.encoding.modules.positions import Counted

        return SinusoidalTable(Counted(), shape.hidden_size)
