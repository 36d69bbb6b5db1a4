"""Resonance RoPE, a modifier of any method's frequencies."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from harness.errors import UserError
from harness.methods.attention.base import AttentionMethod
from harness.methods.attention.regions import Region
from harness.methods.base import Method, RopeFrequencies, RopeGeometry


def resonant(frequencies: RopeFrequencies) -> RopeFrequencies:
    """The frequencies whose wavelengths are those given, rounded to whole tokens.

        inv_freq'_i = 2 pi / round(2 pi / inv_freq_i)
    Positions a wavelength apart then get equal angles. May raise a frequency (by at most 1/12 from a wavelength
    of 2 pi, less the slower it turns). A frequency of zero stays; one of a wavelength below half a token is a
    UserError. Wang et al. 2024, arXiv:2403.00071: applied after any other scaling.
    """
    turning = frequencies.inv_freq > 0
    wavelengths = np.round(2 * np.pi / frequencies.inv_freq[turning])
    if np.any(wavelengths < 1):
        raise UserError(
            f"resonance: wavelengths must be at least half a token, got {2 * np.pi / frequencies.inv_freq.max():.3g}."
        )
    inv_freq = np.zeros_like(frequencies.inv_freq)
    inv_freq[turning] = 2 * np.pi / wavelengths
    return frequencies._replace(inv_freq=inv_freq)


@dataclass(frozen=True, kw_only=True)
class Resonant(Method):
    """Any method, its frequencies made resonant; in everything else the method itself."""

    method: Method

    def __post_init__(self) -> None:
        if self.method.kind == "native":
            raise UserError("method.resonance cannot be combined with native: its frequencies are the checkpoint's.")
        for fact in ("kind", "name", "changes", "source", "version"):
            object.__setattr__(self, fact, getattr(self.method, fact))

    @property
    def depends_on_length(self) -> bool:
        """The method's own answer."""
        return self.method.depends_on_length

    @property
    def factor(self) -> float | None:
        """The method's own."""
        return self.method.factor

    def resolved(self, geometry: RopeGeometry, length: int) -> Self:
        """The method resolved, and resonant."""
        return replace(self, method=self.method.resolved(geometry, length))

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """The method's frequencies for windows of `length` tokens, made resonant. Shape (rotary_dim // 2,)."""
        return resonant(self.method(geometry, length))

    def regions(self, length: int) -> tuple[Region, ...]:
        """Those of a method that changes attention, their arrays (length,)."""
        assert isinstance(self.method, AttentionMethod)
        return self.method.regions(length)

    def limit(self, geometry: RopeGeometry) -> int | None:
        """That of a method that changes attention, in tokens."""
        assert isinstance(self.method, AttentionMethod)
        return self.method.limit(geometry)
