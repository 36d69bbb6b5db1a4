"""Giraffe's power scaling."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from harness.methods.base import Promise, RopeFrequencies, RopeGeometry, check_multiplier, check_positive
from harness.methods.frequency.base import FrequencyMethod


@dataclass(frozen=True, kw_only=True)
class Power(FrequencyMethod):
    """Power scaling (Giraffe): slow dimensions are slowed further, fast ones hardly.

        inv_freq'_i = inv_freq_i / factor (1 - 2i / rotary_dim)^exponent
    The length does not enter: `factor` 1 is the method alone, another one combines it with `linear`.

    Pal et al. 2023, arXiv:2308.10882; the exponent 0.5 is that of the authors' code.
    """

    exponent: float = 0.5
    factor: float = 1.0

    name: ClassVar[str] = "power"
    changes: ClassVar[str] = "every frequency, slow ones most, by a power of its index"
    source: ClassVar[str] = "arXiv:2308.10882"
    promises: ClassVar[tuple[Promise, ...]] = ("positive",)  # the length does not enter

    def __post_init__(self) -> None:
        check_multiplier(self.name, self.factor)
        check_positive(self.name, exponent=self.exponent)

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Scaled frequencies, the same for every length. Shape (rotary_dim // 2,)."""
        position = np.arange(0, geometry.rotary_dim, 2, dtype=np.float64) / geometry.rotary_dim
        return RopeFrequencies(geometry.inv_freq / self.factor * (1 - position) ** self.exponent)
