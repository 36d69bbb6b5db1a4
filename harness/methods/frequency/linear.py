"""Position interpolation."""

from dataclasses import dataclass
from typing import ClassVar

from harness.methods.base import RopeFrequencies, RopeGeometry, check_factor, resolved_factor
from harness.methods.frequency.base import FrequencyMethod


@dataclass(frozen=True, kw_only=True)
class Linear(FrequencyMethod):
    """Position interpolation (PI): every frequency divided by the factor.

        inv_freq'_i = inv_freq_i / factor

    Chen et al. 2023, arXiv:2306.15595, eq. 4. LongLoRA rounds the factor up: give it as `factor`.
    """

    factor: float | None = None  # None: max(1, length / original_max_position_embeddings)

    name: ClassVar[str] = "linear"
    changes: ClassVar[str] = "every frequency, divided by factor"
    source: ClassVar[str] = "arXiv:2306.15595"

    def __post_init__(self) -> None:
        check_factor(self.name, self.factor)

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Interpolated frequencies, the same for every length. Shape (rotary_dim // 2,)."""
        return RopeFrequencies(geometry.inv_freq / resolved_factor(self))
