"""Adjusted base frequency."""

import math
from dataclasses import dataclass
from typing import ClassVar

from harness.errors import UserError
from harness.methods.base import Promise, RopeFrequencies, RopeGeometry
from harness.methods.frequency.base import FrequencyMethod


@dataclass(frozen=True, kw_only=True)
class Abf(FrequencyMethod):
    """Adjusted base frequency (ABF): another base, chosen by hand.

        inv_freq'_i = base^(-2i / rotary_dim),    base = this method's rope_theta instead of the checkpoint's
    500 000 in Llama 2 Long, 1 000 000 in Code Llama. A base below the checkpoint's is allowed: small bases
    extrapolate too (Liu et al. 2023, arXiv:2310.05209).

    Xiong et al. 2023, arXiv:2309.16039.
    """

    rope_theta: float = 500_000.0

    name: ClassVar[str] = "abf"
    changes: ClassVar[str] = "the base"
    source: ClassVar[str] = "arXiv:2309.16039"
    promises: ClassVar[tuple[Promise, ...]] = ("positive",)  # another base at every length

    def __post_init__(self) -> None:
        if not 1 < self.rope_theta < math.inf:
            raise UserError(f"{self.name}: rope_theta must be finite and > 1, got {self.rope_theta}.")

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Frequencies of the other base, the same for every length. Shape (rotary_dim // 2,)."""
        return RopeFrequencies(
            RopeGeometry(
                rotary_dim=geometry.rotary_dim,
                rope_theta=self.rope_theta,
                original_max_position_embeddings=geometry.original_max_position_embeddings,
            ).inv_freq
        )
