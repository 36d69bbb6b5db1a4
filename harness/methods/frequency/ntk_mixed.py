"""NTK-mixed scaling."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from harness.methods.base import RopeFrequencies, RopeGeometry, check_factor, check_positive, resolved_factor
from harness.methods.frequency.base import FrequencyMethod


@dataclass(frozen=True, kw_only=True)
class NtkMixed(FrequencyMethod):
    """NTK-mixed: NTK-fixed whose stretch grows with a power of the dimension, so that fast ones stretch less.

        inv_freq'_i = inv_freq_i exp(-a (i + 1)^beta),    a = ln(factor) / (d / 2)^beta,    d = rotary_dim
    The last frequency is divided by `factor` exactly; beta = 1 is NTK-fixed.

    Su 2023, github.com/bojone/rerope and blog. The code has beta 0.75 and a constant factor 12; the blog has
    beta 0.625 (at factor 8 and rotary_dim 128, frequencies up to 13 % lower). vLLM calls it "ntk" with `mixed_b`.
    """

    factor: float | None = None  # None: max(1, length / original_max_position_embeddings)
    beta: float = 0.75

    name: ClassVar[str] = "ntk_mixed"
    changes: ClassVar[str] = "every frequency, by a power law of its index, the last divided by factor"
    source: ClassVar[str] = "github.com/bojone/rerope"

    def __post_init__(self) -> None:
        check_factor(self.name, self.factor)
        check_positive(self.name, beta=self.beta)

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Scaled frequencies, the same for every length. Shape (rotary_dim // 2,)."""
        pairs = geometry.rotary_dim // 2
        stretch = (np.arange(1, pairs + 1, dtype=np.float64) / pairs) ** self.beta
        return RopeFrequencies(geometry.inv_freq * np.exp(-math.log(resolved_factor(self)) * stretch))
