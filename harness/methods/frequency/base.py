"""What methods that change rotary frequencies share."""

from dataclasses import dataclass
from typing import ClassVar

from harness.methods.base import PROMISES, Kind, Method, Promise


@dataclass(frozen=True, kw_only=True)
class FrequencyMethod(Method):
    """A method that is its formula: a call gives the frequencies.

    It is tested for every promise; one that does not keep them all names those it keeps.
    """

    kind: ClassVar[Kind] = "frequency"
    promises: ClassVar[tuple[Promise, ...]] = PROMISES
