"""Randomized positions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from harness.errors import UserError
from harness.methods.base import added, check_choice
from harness.methods.encoding.base import Encoding, Parameter, Shape

if TYPE_CHECKING:
    from harness.methods.encoding.modules.base import EncodingModule

Base = Literal["rope", "sinusoidal"]
Draws = Literal["integers", "floats"]


@dataclass(frozen=True, kw_only=True)
class Randomized(Encoding):
    """A window of n tokens gets n positions drawn from a range that is longer than any window, in ascending order.

    Drawn without replacement, uniformly: anew for every training sequence, once for each length in evaluation, from
    (seed, length). The positions go into a rotary or a sinusoidal encoding. Ruoss et al. 2023, arXiv:2305.16843,
    section 3; their code shares one draw by all sequences of a batch. With `draws` floats positions are real numbers of
    the same range, each uniform and independent: 2026, arXiv:2602.14050.
    """

    base: Base | None = None  # None: rope
    positions: int | None = None  # the range to draw from; None: 32 x the trained length
    seed: int | None = None  # of the draws in evaluation; None: 0
    draws: Draws | None = added(None)  # None: integers

    name: ClassVar[str] = "randomized"
    changes: ClassVar[str] = "positions: a random ascending subset of a longer range"
    source: ClassVar[str] = "arXiv:2305.16843"
    depends_on_length: ClassVar[bool] = True  # the draw
    why_not: ClassVar[str] = "its positions already span its whole range"
    free: ClassVar[tuple[str, ...]] = ("seed",)

    def __post_init__(self) -> None:
        if self.base is not None:
            check_choice(self.name, "base", self.base, get_args(Base))
        if self.draws is not None:
            check_choice(self.name, "draws", self.draws, get_args(Draws))
        if self.positions is not None and self.positions < 2:
            raise UserError(f"{self.name}: positions must be >= 2 tokens, got {self.positions}.")
        if self.seed is not None and self.seed < 0:
            raise UserError(f"{self.name}: seed must be >= 0, got {self.seed}.")

    def defaults(self, trained: int) -> dict[str, Parameter]:
        """A range 32 times as long as the window trained, as the longest evaluation may be."""
        return {"base": "rope", "positions": 32 * trained, "seed": 0}

    def reach(self, trained: int) -> int | None:
        """The range that integers are drawn from; there are real numbers for any window."""
        assert self.positions is not None
        return None if self.draws == "floats" else self.positions

    def module(self, shape: Shape) -> "EncodingModule":
        """The base encoding at drawn positions."""
        from harness.methods.encoding.modules.embeddings import SinusoidalTable
        from harness.methods.encoding.modules.positions import Drawn, DrawnFloats
        from harness.methods.encoding.modules.rotations import Rotation

        assert self.positions is not None
        assert self.seed is not None
        if self.positions < shape.trained:
            raise UserError(
                f"{self.name}: positions must be >= {shape.trained}, the window trained, got {self.positions}."
            )
        places = (DrawnFloats if self.draws == "floats" else Drawn)(self.positions, self.seed)
        if self.base == "rope":
            return Rotation(places, shape.head_dim)
        return SinusoidalTable(places, shape.hidden_size)
