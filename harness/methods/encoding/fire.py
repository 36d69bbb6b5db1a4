"""FIRE."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.errors import UserError
from harness.methods.encoding.base import Encoding, Parameter, Shape

if TYPE_CHECKING:
    from harness.methods.encoding.modules.base import EncodingModule


@dataclass(frozen=True, kw_only=True)
class Fire(Encoding):
    """FIRE: a learned function of the distance, measured as a share of the query's position, is added to the score.

        f( psi(i - j) / psi(max(i, L)) ),   psi(x) = ln(c x + 1),   f: 1 -> width -> heads with a ReLU between
    c (at first 0.1) and L (at first the trained length; 512 in the paper) are learned, f as well, in each layer anew.
    Li et al. 2023, arXiv:2310.04418, equation 19. i is the query's position from 0: the prefix of a window does not
    depend on its length.
    """

    width: int | None = None  # of the hidden layer; None: 32

    name: ClassVar[str] = "fire"
    changes: ClassVar[str] = "scores: plus a learned function of the relative distance"
    source: ClassVar[str] = "arXiv:2310.04418"
    why_not: ClassVar[str] = "it already measures distances by the query's position"

    def __post_init__(self) -> None:
        if self.width is not None and self.width < 1:
            raise UserError(f"{self.name}: width must be >= 1, got {self.width}.")

    def defaults(self, trained: int) -> dict[str, Parameter]:
        """The paper's."""
        return {"width": 32}

    def module(self, shape: Shape) -> "EncodingModule":
        """The functions of all layers."""
        from harness.methods.encoding.modules.biases import ProgressiveInterpolation

        assert self.width is not None
        return ProgressiveInterpolation(self.width, shape.num_layers, shape.num_heads, shape.trained)
