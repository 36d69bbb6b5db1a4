"""What encodings that a model must be trained with share."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from harness.methods.base import Kind, Method, RopeFrequencies, RopeGeometry

if TYPE_CHECKING:
    from harness.methods.encoding.modules.base import EncodingModule


Parameter = int | float | str | bool


class Shape(NamedTuple):
    """What an encoding needs to know of its model."""

    hidden_size: int
    num_layers: int
    num_heads: int
    trained: int  # tokens

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.hidden_size // self.num_heads


@dataclass(frozen=True, kw_only=True)
class Encoding(Method):
    """An encoding of position that weights are trained with; its parameters are part of the checkpoint.

    A parameter of None is the default in training and "as trained" in evaluation. Those named in `free` change
    nothing that was learned: they may differ from training.
    """

    kind: ClassVar[Kind] = "encoding"
    free: ClassVar[tuple[str, ...]] = ()  # parameters of evaluation
    scalings: ClassVar[tuple[str, ...]] = ()  # methods that can scale its positions
    why_not: ClassVar[str] = ""  # what the others lack

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """A mistake of ours: an encoding acts through its module."""
        raise TypeError(f"{self.name} is an encoding and asks nothing of a rotary embedding")

    def defaults(self, trained: int) -> dict[str, Parameter]:
        """What takes the place of None in a model trained at `trained` tokens."""
        return {}

    def filled(self, trained: int) -> Self:
        """With every parameter in place for a model trained at `trained` tokens."""
        standard = self.defaults(trained)
        return replace(self, **{name: value for name, value in standard.items() if getattr(self, name) is None})

    def reach(self, trained: int) -> int | None:
        """Positions (tokens) that the encoding has; None: any number. Called on a filled encoding."""
        return None

    @abstractmethod
    def module(self, shape: Shape) -> "EncodingModule":
        """The encoding as a part of a model. Imports torch."""
