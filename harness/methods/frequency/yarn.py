"""YaRN."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.methods.base import (
    RopeFrequencies,
    RopeGeometry,
    added,
    check_choice,
    check_factor,
    check_multiplier,
    check_positive,
    check_rotations,
    growth,
    resolved_factor,
)
from harness.methods.frequency.base import FrequencyMethod
from harness.methods.frequency.ramp import dimension_ramp

Ramp = Literal["dimension", "rotations"]
Blend = Literal["arithmetic", "geometric", "harmonic"]
TemperatureOn = Literal["rotated", "logits"]


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
    `blend` "arithmetic": frequencies are averaged; "harmonic": wavelengths are, as in PoSE (down to 0.40);
    "geometric": their logarithms are, inv_freq_i factor^(-r_i), as in Grok-1 (down to 0.60).
    `extrapolation_factor` e multiplies the share 1 - r_i that is kept: 1 is YaRN, 0 position interpolation (in the
    authors' code, and llama.cpp's --yarn-ext-factor). `static_factors`, in place of `factor`: the smallest of them
    that covers the window.
    `temperature_coefficient` stands for 0.1 (TeleChat3: 0.07). `temperature_on` "rotated": cosines and sines are
    multiplied, as in transformers and vLLM, so channels that do not rotate keep their part of the logits; "logits":
    all logits are, as in the paper. Where every channel rotates the two are the same.
    `attention_factor`: in place of 0.1 ln(factor) + 1. `mscale` and `mscale_all_dim`, DeepSeek's: the quotient
    of 0.1 mscale ln(factor) + 1 and the same with mscale_all_dim; models whose code scales the softmax by the latter
    (DeepSeek and its kin) are given that scale, too.
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
    extrapolation_factor: float = added(1.0)
    static_factors: list[float] | None = added(None)
    temperature_coefficient: float = added(0.1)
    temperature_on: TemperatureOn = added("rotated")

    name: ClassVar[str] = "yarn"
    changes: ClassVar[str] = "slow frequencies divided by factor, fast ones kept; attention temperature"
    source: ClassVar[str] = "arXiv:2309.00071"

    def __post_init__(self) -> None:
        check_factor(self.name, self.factor)
        check_rotations(self.name, beta_fast=self.beta_fast, beta_slow=self.beta_slow)
        check_positive(self.name, attention_factor=self.attention_factor)
        check_choice(self.name, "ramp", self.ramp, get_args(Ramp))
        check_choice(self.name, "blend", self.blend, get_args(Blend))
        check_choice(self.name, "temperature_on", self.temperature_on, get_args(TemperatureOn))
        if not 0 <= self.extrapolation_factor <= 1:
            raise UserError(f"{self.name}: extrapolation_factor must lie in [0, 1], got {self.extrapolation_factor}.")
        if not 0 <= self.temperature_coefficient < math.inf:
            raise UserError(
                f"{self.name}: temperature_coefficient must be finite and >= 0, got {self.temperature_coefficient}."
            )
        for factor in self.static_factors or ():
            check_multiplier(self.name, factor)
        if (self.mscale is None) != (self.mscale_all_dim is None):
            raise UserError(
                f"{self.name}: mscale and mscale_all_dim go together, "
                f"got mscale={self.mscale}, mscale_all_dim={self.mscale_all_dim}."
            )

    def resolved(self, geometry: RopeGeometry, length: int) -> Self:
        """With the factor filled in; UserError where none of `static_factors` covers the window."""
        if self.static_factors is None:
            return super().resolved(geometry, length)
        if self.factor not in (None, *self.static_factors):
            raise UserError(f"{self.name}: give either factor or static_factors, got {self.factor} beside them.")
        wanted = growth(geometry, length)
        covering = [factor for factor in self.static_factors if factor >= wanted]
        if not covering:
            raise UserError(
                f"{self.name}: static_factors must hold one of at least {wanted:g} (ctx / "
                f"original_max_position_embeddings), got {self.static_factors}."
            )
        return replace(self, factor=min(covering))

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Blended frequencies, (rotary_dim // 2,), and the factor's attention scaling, the same for every length."""
        factor = resolved_factor(self)
        share = self._interpolated_share(geometry)
        if self.blend == "harmonic":
            scale = 1 / (1 - share + share * factor)
        elif self.blend == "geometric":
            scale = factor**-share
        else:
            scale = 1 - share + share / factor
        scaling = self._attention_scaling(factor)
        if self.temperature_on == "logits":
            return RopeFrequencies(geometry.inv_freq * scale, logit_scaling=scaling**2)
        return RopeFrequencies(geometry.inv_freq * scale, scaling)

    def _interpolated_share(self, geometry: RopeGeometry) -> NDArray[np.float64]:
        if self.ramp == "dimension":
            share = dimension_ramp(geometry, self.beta_fast, self.beta_slow, truncate=self.truncate)
        else:
            rotations = geometry.original_max_position_embeddings * geometry.inv_freq / (2 * math.pi)
            share = 1 - np.clip((rotations - self.beta_slow) / (self.beta_fast - self.beta_slow), 0, 1)
        if self.extrapolation_factor == 1:
            return share
        return 1 - (1 - share) * self.extrapolation_factor

    def _attention_scaling(self, factor: float) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale is not None and self.mscale_all_dim is not None:
            return temperature(factor, self.mscale) / temperature(factor, self.mscale_all_dim)
        return self.temperature_coefficient * math.log(factor) + 1


def temperature(factor: float, mscale: float = 1.0) -> float:
    """Multiplier of cos and sin, 0.1 mscale ln(factor) + 1; arXiv:2309.00071, section 3.4."""
    return 0.1 * mscale * math.log(factor) + 1
