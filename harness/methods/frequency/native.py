"""The checkpoint's own scaling."""

from dataclasses import dataclass
from typing import ClassVar

from harness.methods.base import Kind, Method, RopeFrequencies, RopeGeometry


@dataclass(frozen=True, kw_only=True)
class Native(Method):
    """Whatever scaling the checkpoint's own config declares, computed by the model itself.

    It has no frequencies of ours: the model's rotary module is left alone, its state reset before every window.
    Declared scalings may look at the length, so no window stands for another's.
    """

    kind: ClassVar[Kind] = "native"
    name: ClassVar[str] = "native"
    changes: ClassVar[str] = "nothing: the scaling that the checkpoint declares"
    source: ClassVar[str] = "the checkpoint"
    depends_on_length: ClassVar[bool] = True
    as_it_is: ClassVar[bool] = True

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """A mistake of ours: the model computes its own."""
        raise TypeError(f"{self.name} has no frequencies of its own")
