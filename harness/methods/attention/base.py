"""What methods that change attention share."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from harness.methods.attention.regions import Region
from harness.methods.base import Kind, Method, RopeFrequencies, RopeGeometry


@dataclass(frozen=True, kw_only=True)
class AttentionMethod(Method):
    """A method that counts relative positions anew in regions of the scores; frequencies are the unscaled ones."""

    kind: ClassVar[Kind] = "attention"

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """The unscaled frequencies, (rotary_dim // 2,), whatever the length."""
        return RopeFrequencies(geometry.inv_freq)

    @abstractmethod
    def regions(self, length: int) -> tuple[Region, ...]:
        """The regions of a window of `length` tokens, their arrays (length,); called on a resolved method."""

    @abstractmethod
    def limit(self, geometry: RopeGeometry) -> int | None:
        """Longest window (tokens) whose relative positions were all trained; None: any. Of a resolved method."""
