"""SHAPE: shifted absolute positions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.errors import UserError
from harness.methods.encoding.base import Encoding, Parameter, Shape
from harness.methods.encoding.sinusoidal import SCALINGS

if TYPE_CHECKING:
    from harness.methods.encoding.modules.base import EncodingModule


@dataclass(frozen=True, kw_only=True)
class ShapeEncoding(Encoding):
    """SHAPE: sinusoidal positions with one random shift a sequence, so that a model learns to use differences.

        x_n = sqrt(D) E[token_n] + p[n + k],  k uniform in 0 .. shift - 1 in training, fixed in evaluation
    Kiyono et al. 2021, arXiv:2109.05644, section 3. The default shift of 500 is that of the authors' configuration
    for translation, and evaluation uses k = shift, as their code does (their text has k = 0).
    """

    shift: int | None = None  # tokens; None: 500
    evaluation_shift: int | None = None  # tokens; None: shift

    name: ClassVar[str] = "shape"
    changes: ClassVar[str] = "the input: sinusoidal positions, shifted at random in training"
    source: ClassVar[str] = "arXiv:2109.05644"
    scalings: ClassVar[tuple[str, ...]] = SCALINGS
    why_not: ClassVar[str] = "there is no rotation to scale, only the frequencies of its table"
    free: ClassVar[tuple[str, ...]] = ("evaluation_shift",)

    def __post_init__(self) -> None:
        if self.shift is not None and self.shift < 1:
            raise UserError(f"{self.name}: shift must be >= 1 token, got {self.shift}.")
        if self.evaluation_shift is not None and self.evaluation_shift < 0:
            raise UserError(f"{self.name}: evaluation_shift must be >= 0 tokens, got {self.evaluation_shift}.")

    def defaults(self, trained: int) -> dict[str, Parameter]:
        """The authors' numbers."""
        return {"shift": 500, "evaluation_shift": 500 if self.shift is None else self.shift}

    def module(self, shape: Shape) -> "EncodingModule":
        """The sinusoidal table at shifted positions."""
        from harness.methods.encoding.modules.embeddings import SinusoidalTable
        from harness.methods.encoding.modules.positions import Shifted

        assert self.shift is not None
        assert self.evaluation_shift is not None
        return SinusoidalTable(Shifted(self.shift, self.evaluation_shift), shape.hidden_size)
