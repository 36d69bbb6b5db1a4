"""No positional encoding."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.methods.encoding.base import Encoding, Shape

if TYPE_CHECKING:
    from harness.methods.encoding.modules.base import EncodingModule


@dataclass(frozen=True, kw_only=True)
class Nope(Encoding):
    """NoPE: only the causal mask distinguishes positions. Kazemnejad et al. 2023, arXiv:2305.19466, section 3."""

    name: ClassVar[str] = "nope"
    changes: ClassVar[str] = "nothing: only the causal mask tells positions apart"
    source: ClassVar[str] = "arXiv:2305.19466"
    why_not: ClassVar[str] = "there are no positions to scale"

    def module(self, shape: Shape) -> "EncodingModule":
        """Nothing."""
        from harness.methods.encoding.modules.base import EncodingModule

        return EncodingModule()
