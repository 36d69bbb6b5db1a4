"""ALiBi."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.methods.encoding.base import Encoding, Shape

if TYPE_CHECKING:
    from harness.methods.encoding.modules.base import EncodingModule


@dataclass(frozen=True, kw_only=True)
class Alibi(Encoding):
    """ALiBi: scores lose an amount proportional to the distance, another for each head.

        score_ij = q_i . k_j / sqrt(d) - m_h (i - j),   m_h = 2^(-8 (h + 1) / heads)
    for a power of two of heads; otherwise the slopes of the next lower power of two, then every second one of twice
    that power. Press et al. 2022, arXiv:2108.12409, section 3. `linear` divides the slopes by its factor.
    """

    name: ClassVar[str] = "alibi"
    changes: ClassVar[str] = "scores: minus a slope times the distance"
    source: ClassVar[str] = "arXiv:2108.12409"
    scalings: ClassVar[tuple[str, ...]] = ("linear",)
    why_not: ClassVar[str] = "it has slopes and no frequencies"

    def module(self, shape: Shape) -> "EncodingModule":
        """The slopes."""
        from harness.methods.encoding.modules.biases import Slopes

        return Slopes(slopes(shape.num_heads))


def slopes(num_heads: int) -> NDArray[np.float64]:
    """m_h of each head, (num_heads,), a token."""
    power = 2 ** math.floor(math.log2(num_heads))
    own = 2.0 ** (-8 * np.arange(1, power + 1) / power)
    between = 2.0 ** (-8 * np.arange(1, 2 * power + 1) / (2 * power))
    return np.concatenate([own, between[::2]])[:num_heads]
