"""The checkpoint's own scaling."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Native:
    """Whatever scaling the checkpoint's own config declares, computed by the model itself.

    It has no frequencies of ours: the model's rotary module is left alone, its state reset before every window.
    Declared scalings may look at the length, so no window stands for another's.
    """

    kind: ClassVar[str] = "native"
    changes: ClassVar[str] = "nothing: the scaling that the checkpoint declares"
    source: ClassVar[str] = "the checkpoint"
    version: ClassVar[int] = 1
    depends_on_length: ClassVar[bool] = True
