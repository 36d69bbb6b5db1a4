"""YaRN."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.methods.base import (
    RopeFrequencies,
    RopeGeometry,
    check_choice,
    check_factor,
    check_positive,
    check_rotations,
    resolved_factor,
)
from harness.methods.frequency.base import FrequencyMethod
from harness.methods.frequency.ramp import dimension_ramp

Ramp = Literal["dimension", "rotations"]
Blend = Literal["arithmetic", "harmonic"]


@dataclass(frozen=True, kw_only=True)
class Yarn(FrequencyMethod):
    """YaRN: keep fast dimensions, interpolate slow ones, ramp between; sharpen attention.

        inv_freq'_i = (1 - r_i) inv_freq_i + r_i inv_freq_i / factor
        attention_scaling = 0.1 ln(factor) + 1
    r rises from 0 at the frequency turning `beta_fast` times over the trained length to 1 at the one turning
    `beta_slow` times. Peng et al. 2023, arXiv:2309.00071, sections 3.2 and 3.4. Where code and paper, or
    implementations, differ, the authors' code is the default (sizes for LLaMA2 at factor 8):

    `ramp` "dimension": r linear in the index between two corners, as in the code; "rotations": linear in the
    rotations themselves, as in the paper (frequencies down to 0.43 of the code's).
    `truncate`: corners rounded outwards to whole indices; false: not rounded (down to 0.79, up to 1.03).
    `blend` "arithmetic": frequencies are averaged; "harmonic": wavelengths are, as in PoSE (down to 0.40).
    `attention_factor`: in place of 0.1 ln(factor) + 1. `mscale` and `mscale_all_dim`, DeepSeek's: the quotient
    of 0.1 mscale ln(factor) + 1 and the same with mscale_all_dim; their scale on the logits is the model's own.
    """

    factor: float | None = None  # None: max(1, length / original_max_position_embeddings)
    beta_fast: float = 32.0  # rotations over the trained length
    beta_slow: float = 1.0
    ramp: Ramp = "dimension"
    truncate: bool = True
    blend: Blend = "arithmetic"
    attention_factor: float | None = None  # multiplies cos and sin; None: 0.1 ln(factor) + 1
    mscale: float | None = None
    mscale_all_dim: float | None = None

    name: ClassVar[str] = "yarn"
    changes: ClassVar[str] = "slow frequencies divided by factor, fast ones kept; attention temperature"
    source: ClassVar[str] = "arXiv:2309.00071"

    def __post_init__(self) -> None:
        check_factor(self.name, self.factor)
        check_rotations(self.name, beta_fast=self.beta_fast, beta_slow=self.beta_slow)
        check_positive(self.name, attention_factor=self.attention_factor)
        check_choice(self.name, "ramp", self.ramp, get_args(Ramp))
        check_choice(self.name, "blend", self.blend, get_args(Blend))
        if (self.mscale is None) != (self.mscale_all_dim is None):
            raise UserError(
                f"{self.name}: mscale and mscale_all_dim go together, "
                f"got mscale={self.mscale}, mscale_all_dim={self.mscale_all_dim}."
            )

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Blended frequencies, (rotary_dim // 2,), and the factor's attention scaling, the same for every length."""
        factor = resolved_factor(self)
        share = self._interpolated_share(geometry)
        if self.blend == "harmonic":
            scale = 1 / (1 - share + share * factor)
        else:
            scale = 1 - share + share / factor
        return RopeFrequencies(geometry.inv_freq * scale, self._attention_scaling(factor))

    def _interpolated_share(self, geometry: RopeGeometry) -> NDArray[np.float64]:
        if self.ramp == "dimension":
            return dimension_ramp(geometry, self.beta_fast, self.beta_slow, truncate=self.truncate)
        rotations = geometry.original_max_position_embeddings * geometry.inv_freq / (2 * math.pi)
        return 1 - np.clip((rotations - self.beta_slow) / (self.beta_fast - self.beta_slow), 0, 1)

    def _attention_scaling(self, factor: float) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale is not None and self.mscale_all_dim is not None:
            return temperature(factor, self.mscale) / temperature(factor, self.mscale_all_dim)
        return temperature(factor)


def temperature(factor: float, mscale: float = 1.0) -> float:
    """Multiplier of cos and sin, 0.1 mscale ln(factor) + 1; arXiv:2309.00071, section 3.4."""
    return 0.1 * mscale * math.log(factor) + 1
