"""NTK-fixed scaling."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from harness.methods.base import RopeFrequencies, RopeGeometry, check_factor, resolved_factor
from harness.methods.frequency.base import FrequencyMethod


@dataclass(frozen=True, kw_only=True)
class NtkFixed(FrequencyMethod):
    """NTK-fixed: NTK-aware scaling that spreads the factor over all frequencies, the first included.

        inv_freq'_i = (rope_theta factor)^(-2i / d) / factor^(2 / d),    d = rotary_dim
    The first frequency is divided by factor^(2 / d), the last by `factor` exactly.

    Su 2023, github.com/bojone/rerope and blog; "ntk" in vLLM.
    """

    factor: float | None = None  # None: max(1, length / original_max_position_embeddings)

    name: ClassVar[str] = "ntk_fixed"
    changes: ClassVar[str] = "the base, every frequency a little, the last divided by factor"
    source: ClassVar[str] = "github.com/bojone/rerope"

    def __post_init__(self) -> None:
        check_factor(self.name, self.factor)

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Scaled frequencies, the same for every length. Shape (rotary_dim // 2,)."""
        pair = np.arange(1, geometry.rotary_dim // 2 + 1, dtype=np.float64)
        return RopeFrequencies(geometry.inv_freq * resolved_factor(self) ** (-2 * pair / geometry.rotary_dim))
