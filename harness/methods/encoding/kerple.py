"""Kerple."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from harness.methods.base import check_choice
from harness.methods.encoding.base import Encoding, Parameter, Shape

if TYPE_CHECKING:
    from harness.methods.encoding.modules.base import EncodingModule

Form = Literal["log", "power"]


@dataclass(frozen=True, kw_only=True)
class Kerple(Encoding):
    """Kerple: scores lose a learned kernel of the distance r = i - j, with two parameters for each head and layer.

        "log":    p ln(1 + a r),  p, a > 0
        "power":  p r^a,          p > 0, 0 < a <= 2
    Chi et al. 2022, arXiv:2205.09921, equations 4 and 5; "log" is the one they recommend. Initial p uniform in
    (0, 2), a uniform in (0, 1); both are kept at 0.01 or above, as in their code.
    """

    form: Form | None = None  # None: log

    name: ClassVar[str] = "kerple"
    changes: ClassVar[str] = "scores: minus a learned kernel of the distance"
    source: ClassVar[str] = "arXiv:2205.09921"
    why_not: ClassVar[str] = "its kernel is learned and defined at every distance"

    def __post_init__(self) -> None:
        if self.form is not None:
            check_choice(self.name, "form", self.form, get_args(Form))

    def defaults(self, trained: int) -> dict[str, Parameter]:
        """The recommended form."""
        return {"form": "log"}

    def module(self, shape: Shape) -> "EncodingModule":
        """The kernels of all layers."""
        from harness.methods.encoding.modules.biases import Kernel

        assert self.form is not None
        return Kernel(self.form, shape.num_layers, shape.num_heads)
