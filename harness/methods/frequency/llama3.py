"""Llama 3.1's scaling."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from harness.methods.base import RopeFrequencies, RopeGeometry, check_factor, check_rotations, resolved_factor
from harness.methods.frequency.base import FrequencyMethod


@dataclass(frozen=True, kw_only=True)
class Llama3(FrequencyMethod):
    """Llama 3.1: keep frequencies that turn often, interpolate those that turn little, ramp in rotations between.

        r_i = original_max_position_embeddings inv_freq_i / 2 pi        (rotations over the trained length)
        u_i = clip((r_i - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
        inv_freq'_i = (1 - u_i) inv_freq_i / factor + u_i inv_freq_i
    Grattafiori et al. 2024, arXiv:2407.21783, and the code released with the model, where factor is 8. It is
    YaRN's ramp in rotations between 1 and 4, without its attention scaling.
    """

    factor: float | None = None  # None: max(1, length / original_max_position_embeddings)
    low_freq_factor: float = 1.0  # rotations over the trained length
    high_freq_factor: float = 4.0

    name: ClassVar[str] = "llama3"
    changes: ClassVar[str] = "slow frequencies divided by factor, fast ones kept"
    source: ClassVar[str] = "arXiv:2407.21783"

    def __post_init__(self) -> None:
        check_factor(self.name, self.factor)
        check_rotations(self.name, high_freq_factor=self.high_freq_factor, low_freq_factor=self.low_freq_factor)

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Blended frequencies, the same for every length. Shape (rotary_dim // 2,)."""
        inv_freq = geometry.inv_freq
        rotations = geometry.original_max_position_embeddings * inv_freq / (2 * math.pi)
        band = self.high_freq_factor - self.low_freq_factor
        kept = np.clip((rotations - self.low_freq_factor) / band, 0, 1)
        return RopeFrequencies((1 - kept) * inv_freq / resolved_factor(self) + kept * inv_freq)
