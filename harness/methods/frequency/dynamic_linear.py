"""Dynamic position interpolation."""

from dataclasses import dataclass
from typing import ClassVar

from harness.methods.base import RopeFrequencies, RopeGeometry, check_multiplier, growth
from harness.methods.frequency.base import FrequencyMethod


@dataclass(frozen=True, kw_only=True)
class DynamicLinear(FrequencyMethod):
    """Dynamic position interpolation: divided by how much longer than the trained length the window is.

        inv_freq'_i = inv_freq_i / max(factor, length / original_max_position_embeddings)
    `factor`, the least scaling, is the one a checkpoint was fine-tuned with; 1 for one that was not.

    Peng et al. 2023, arXiv:2309.00071, section 3.3, applied to position interpolation.
    """

    factor: float = 1.0

    name: ClassVar[str] = "dynamic_linear"
    changes: ClassVar[str] = "every frequency, divided by a factor growing with the window"
    source: ClassVar[str] = "arXiv:2309.00071"
    depends_on_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_multiplier(self.name, self.factor)

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Frequencies for windows of `length` tokens. Shape (rotary_dim // 2,)."""
        return RopeFrequencies(geometry.inv_freq / max(self.factor, growth(geometry, length)))
