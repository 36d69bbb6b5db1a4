"""LongRoPE."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.methods.base import (
    Promise,
    RopeFrequencies,
    RopeGeometry,
    added,
    check_choice,
    check_factor,
    check_positive,
    resolved_factor,
)
from harness.methods.frequency import rescale_factors, yarn
from harness.methods.frequency.base import FrequencyMethod

TEMPERATURES = ("none", "su", "yarn")


@dataclass(frozen=True, kw_only=True)
class LongRope(FrequencyMethod):
    """LongRoPE: one searched rescale factor a frequency, unscaled first positions, an attention temperature.

        inv_freq'_i = inv_freq_i / long_factor_i        (positions below `unscaled_prefix` stay unscaled)
        attention_scaling = sqrt(1 + ln(factor) / ln(original_max_position_embeddings))             ("su")
    Ding et al. 2024, arXiv:2402.13753, and its code, from which `su` is (the paper has no temperature) and which
    uses one set at every length. Phi-3 and transformers switch: `short_factor` for windows within the trained
    length, `long_factor` for longer ones; give both. Both apply the temperature of the full extension at every
    length (1.118 at factor 8 from 4096); `short_temperature` false leaves windows within the trained length
    without it. With `dynamic`, factors are interpolated to the window: 1 + (long_factor - 1) (s - 1) / (factor - 1)
    with s = length / original_max_position_embeddings; never below 1, where the authors' code extrapolates and
    raises frequencies of windows shorter than trained.
    A checkpoint fine-tuned with a published set keeps the temperature of its own extension: give `factor` (for
    LLaMA2-7B 32 at 128k, 64 at 256k), or every length gets that of its own.
    `short_mscale` and `long_mscale`, as vLLM reads them from a checkpoint, stand for the temperature on their side.
    Files of `harness.search` hold one set a length: windows use that of the next longer one, of the longest beyond.
    """

    factors: str | None = None  # named set or file: read into long_factor (and short_factor)
    short_factors: str | None = None  # named set or file: read into short_factor
    long_factor: list[float] | None = None
    short_factor: list[float] | None = None  # None: long_factor at every length
    factor: float | None = None  # None: max(1, length / original_max_position_embeddings); for the temperature
    temperature: Any = None  # su | yarn | none | a number; None: that of the set or file, else su
    short_temperature: bool = True
    unscaled_prefix: int | None = None  # tokens (the paper's n-hat); None: that of the set or file, else 0
    dynamic: bool = False
    short_mscale: float | None = added(
        None
    )  # multiplies cos and sin within the trained length, whatever temperature says
    long_mscale: float | None = added(None)  # the same beyond it

    name: ClassVar[str] = "longrope"
    changes: ClassVar[str] = "every frequency, by searched factors; attention temperature; first positions kept"
    source: ClassVar[str] = "arXiv:2402.13753"
    promises: ClassVar[tuple[Promise, ...]] = ("positive",)  # factors are the user's

    def __post_init__(self) -> None:
        check_factor(self.name, self.factor)
        self._check_factors()
        if isinstance(self.temperature, str):
            check_choice(self.name, "temperature", self.temperature, TEMPERATURES)
        elif self.temperature is not None and (
            type(self.temperature) not in (int, float) or not 0 < self.temperature < math.inf
        ):
            raise UserError(
                f"{self.name}: temperature must be one of {', '.join(TEMPERATURES)} or a number > 0, "
                f"got {self.temperature}."
            )
        check_positive(self.name, short_mscale=self.short_mscale, long_mscale=self.long_mscale)
        if self.unscaled_prefix is not None and self.unscaled_prefix < 0:
            raise UserError(f"{self.name}: unscaled_prefix must be >= 0 tokens, got {self.unscaled_prefix}.")
        if self.dynamic and not (self.factor is not None and self.factor > 1):
            raise UserError(
                f"{self.name}: dynamic needs factor > 1, the extension that the rescale factors are for, "
                f"got {self.factor}."
            )

    def _check_factors(self) -> None:
        if (self.factors is None) == (self.long_factor is None):
            raise UserError(f"{self.name}: give either factors (a published set or a file) or long_factor (a list).")
        if self.short_factors is not None and self.short_factor is not None:
            raise UserError(f"{self.name}: give either short_factors (a set or a file) or short_factor (a list).")
        for name, values in (("long_factor", self.long_factor), ("short_factor", self.short_factor)):
            for value in values or ():
                if not 0 < value < math.inf:
                    raise UserError(f"{self.name}: every {name} must be finite and > 0, got {value}.")

    @property
    def depends_on_length(self) -> bool:
        """Whether short and long windows differ: by factors, by temperature or by interpolation."""
        switched = self.short_factor is not None or self.short_factors is not None
        return switched or self.dynamic or not self.short_temperature or self.short_mscale != self.long_mscale

    def resolved(self, geometry: RopeGeometry, length: int) -> Self:
        """With named sets and files read into lists, those for windows of up to `length` tokens, and the factor."""
        long_factor, short_factor = self.long_factor, self.short_factor
        temperature, prefix = self.temperature, self.unscaled_prefix
        if self.factors is not None:
            read = rescale_factors.read(self.factors, length)
            long_factor, short_factor = read.long_factor, short_factor or read.short_factor
            temperature = read.temperature if temperature is None else temperature
            prefix = read.unscaled_prefix if prefix is None else prefix
        if self.short_factors is not None:
            short_factor = rescale_factors.read(self.short_factors, length).long_factor
        filled = replace(
            self,
            factors=None,
            short_factors=None,
            long_factor=long_factor,
            short_factor=short_factor,
            temperature="su" if temperature is None else temperature,
            unscaled_prefix=prefix or 0,
        )
        filled._check_lengths(geometry)
        return super(LongRope, filled).resolved(geometry, length)

    def _check_lengths(self, geometry: RopeGeometry) -> None:
        pairs = geometry.rotary_dim // 2
        for name, values in (("long_factor", self.long_factor), ("short_factor", self.short_factor)):
            if values is not None and len(values) != pairs:
                raise UserError(
                    f"{self.name}: {name} must have {pairs} factors (rotary_dim {geometry.rotary_dim} / 2), "
                    f"got {len(values)}."
                )

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Frequencies, (rotary_dim // 2,), attention scaling and unscaled prefix for windows of `length` tokens."""
        self._check_lengths(geometry)
        within = length <= geometry.original_max_position_embeddings
        given = self.short_mscale if within else self.long_mscale
        scaling = 1.0 if within and not self.short_temperature else self._attention_scaling(geometry)
        inv_freq = geometry.inv_freq / self._rescale(geometry, length)
        return RopeFrequencies(inv_freq, given or scaling, self.unscaled_prefix or 0)

    def _rescale(self, geometry: RopeGeometry, length: int) -> NDArray[np.float64]:
        assert self.long_factor is not None, "longrope: resolve factors before the call"
        growth = length / geometry.original_max_position_embeddings
        if self.short_factor is not None and growth <= 1:
            return np.array(self.short_factor, dtype=np.float64)
        long_factor = np.array(self.long_factor, dtype=np.float64)
        if not self.dynamic:
            return long_factor
        return 1 + (long_factor - 1) * max(0.0, growth - 1) / (resolved_factor(self) - 1)

    def _attention_scaling(self, geometry: RopeGeometry) -> float:
        factor = resolved_factor(self)
        if self.temperature in (None, "su"):
            return math.sqrt(1 + math.log(factor) / math.log(geometry.original_max_position_embeddings))
        if self.temperature == "yarn":
            return yarn.temperature(factor)
        return 1.0 if self.temperature == "none" else float(self.temperature)
