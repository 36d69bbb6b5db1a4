"""Random padding: learned positions whose table is longer than the training windows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.errors import UserError
from harness.methods.encoding.base import Encoding, Parameter, Shape

if TYPE_CHECKING:
    from harness.methods.encoding.modules.base import EncodingModule


@dataclass(frozen=True, kw_only=True)
class RandomPadding(Encoding):
    """Learned positions that are all trained: a window lies at a random place of a table longer than itself.

        x_n = E[token_n] + P[n + k],  k uniform in 0 .. rows - length in training, 0 in evaluation
    Tao et al. 2023, arXiv:2305.04859, move padding to the front of encoder inputs. For a causal model padding in
    front is a shift of all positions, which is what this does; how the authors draw k is not stated in what was at
    hand, uniform is our reading.
    """

    rows: int | None = None  # of the table: the longest window; None: 8 x the trained length

    name: ClassVar[str] = "random_padding"
    changes: ClassVar[str] = "the input: a learned vector a position, windows shifted at random in training"
    source: ClassVar[str] = "arXiv:2305.04859"
    scalings: ClassVar[tuple[str, ...]] = ("linear",)
    why_not: ClassVar[str] = "it has a table of vectors and no frequencies"

    def __post_init__(self) -> None:
        if self.rows is not None and self.rows < 2:
            raise UserError(f"{self.name}: rows must be >= 2 tokens, got {self.rows}.")

    def defaults(self, trained: int) -> dict[str, Parameter]:
        """Eight windows' worth of rows."""
        return {"rows": 8 * trained}

    def reach(self, trained: int) -> int:
        """The rows of the table."""
        assert self.rows is not None
        return self.rows

    def module(self, shape: Shape) -> "EncodingModule":
        """The table at shifted positions."""
        from harness.methods.encoding.modules.embeddings import LearnedTable
        from harness.methods.encoding.modules.positions import Shifted

        assert self.rows is not None
        if self.rows < shape.trained:
            raise UserError(f"{self.name}: rows must be >= {shape.trained}, the window trained, got {self.rows}.")
        return LearnedTable(Shifted(self.rows - shape.trained + 1, 0), self.rows, shape.hidden_size)
