"""NTK-by-parts, the version before YaRN."""

from dataclasses import dataclass
from typing import ClassVar

from harness.methods.base import RopeFrequencies, RopeGeometry, check_factor, check_rotations, resolved_factor
from harness.methods.frequency.base import FrequencyMethod
from harness.methods.frequency.ntk import ntk_aware
from harness.methods.frequency.ramp import dimension_ramp


@dataclass(frozen=True, kw_only=True)
class NtkByParts(FrequencyMethod):
    """NTK-by-parts, first version: keep fast dimensions, then NTK-aware, then linear for the slowest.

        x_i = (1 - b_i) ntk_i + b_i inv_freq_i / factor,    inv_freq'_i = (1 - g_i) inv_freq_i + g_i x_i
    b and g rise from 0 to 1 between the dimensions turning `beta_fast` and `beta_slow`, `gamma_fast` and
    `gamma_slow` times over the trained length; corners are rounded outwards.

    The YaRN authors' code ("part-ntk", github.com/jquesnelle/yarn). Peng et al. 2023, arXiv:2309.00071, section
    3.2, gives the name to a blend without NTK-aware frequencies: that is `yarn` with attention_factor=1 and
    ramp=rotations (for LLaMA2 at factor 8, frequencies up to 62 % lower).
    """

    factor: float | None = None  # None: max(1, length / original_max_position_embeddings)
    beta_fast: float = 1.25  # rotations over the trained length: NTK-aware above, linear below
    beta_slow: float = 0.75
    gamma_fast: float = 16.0  # rotations over the trained length: unscaled above
    gamma_slow: float = 2.0

    name: ClassVar[str] = "ntk_by_parts"
    changes: ClassVar[str] = "slow frequencies: NTK-aware, the slowest divided by factor; fast ones kept"
    source: ClassVar[str] = "github.com/jquesnelle/yarn"

    def __post_init__(self) -> None:
        check_factor(self.name, self.factor)
        check_rotations(self.name, beta_fast=self.beta_fast, beta_slow=self.beta_slow)
        check_rotations(self.name, gamma_fast=self.gamma_fast, gamma_slow=self.gamma_slow)

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Blended frequencies, the same for every length. Shape (rotary_dim // 2,)."""
        factor = resolved_factor(self)
        linear = dimension_ramp(geometry, self.beta_fast, self.beta_slow)
        scaled = dimension_ramp(geometry, self.gamma_fast, self.gamma_slow)
        slow = (1 - linear) * ntk_aware(geometry, factor) + linear * geometry.inv_freq / factor
        return RopeFrequencies((1 - scaled) * geometry.inv_freq + scaled * slow)
