"""Resonance RoPE, a modifier of any method's frequencies."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.methods.base import RopeFrequencies, RopeGeometry


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


@dataclass(frozen=True)
class Resonant:
    """Any method, its frequencies made resonant; in everything else the method itself."""

    method: Any

    def __post_init__(self) -> None:
        if self.method.kind == "native":
            raise UserError("method.resonance cannot be combined with native: its frequencies are the checkpoint's.")

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """The method's frequencies for windows of `length` tokens, made resonant."""
        return resonant(self.method(geometry, length))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)
