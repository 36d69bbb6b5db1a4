"""xPos, and its blockwise attention at evaluation (LeX)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.methods.base import check_positive
from harness.methods.encoding.base import Encoding, Parameter, Shape

if TYPE_CHECKING:
    from harness.methods.encoding.modules.base import EncodingModule


@dataclass(frozen=True, kw_only=True)
class Xpos(Encoding):
    """xPos: rotary positions whose score decays with distance, fast channels more than slow ones.

        pair m of q_i . k_j is multiplied by zeta_m^((i - j) / decay_length),  zeta_m = (m / (d / 2) + 0.4) / 1.4
    with rotations as in RoPE (base 10000). Sun et al. 2022, arXiv:2212.10554, equation 12; 0.4 and a decay length of
    512 are their code's. Exactly relative. `lex` is their attention of evaluation: queries in blocks of half the
    trained length see their own block and the one before. The paper says blockwise; that the block is half the
    trained length is our reading of it.
    """

    decay_length: float | None = None  # tokens; None: 512
    lex: bool | None = None  # None: false

    name: ClassVar[str] = "xpos"
    changes: ClassVar[str] = "queries and keys: rotation and exponential decay"
    source: ClassVar[str] = "arXiv:2212.10554"
    scalings: ClassVar[tuple[str, ...]] = ("linear",)
    why_not: ClassVar[str] = (
        "its decay was trained together with its frequencies and only positions can be scaled for both"
    )
    free: ClassVar[tuple[str, ...]] = ("lex",)

    def __post_init__(self) -> None:
        check_positive(self.name, decay_length=self.decay_length)

    def defaults(self, trained: int) -> dict[str, Parameter]:
        """The authors' constant; attention to all keys."""
        return {"decay_length": 512.0, "lex": False}

    def module(self, shape: Shape) -> "EncodingModule":
        """Rotation and decay."""
        from harness.methods.encoding.modules.rotations import DecayingRotation

        assert self.decay_length is not None
        block = shape.trained // 2 if self.lex else None
        return DecayingRotation(shape.head_dim, decay(shape.head_dim, self.decay_length), block)


def decay(head_dim: int, decay_length: float) -> NDArray[np.float64]:
    """Logarithm of what each pair's score is multiplied by a token of distance, (head_dim // 2,), negative."""
    zeta = (np.arange(head_dim // 2) / (head_dim / 2) + 0.4) / 1.4
    return np.log(zeta) / decay_length
