"""No scaling: direct extrapolation."""

from dataclasses import dataclass
from typing import ClassVar

from harness.methods.base import Promise, RopeFrequencies, RopeGeometry
from harness.methods.frequency.base import FrequencyMethod


@dataclass(frozen=True, kw_only=True)
class Unscaled(FrequencyMethod):
    """Direct extrapolation: the frequencies of training at every position.

        inv_freq'_i = inv_freq_i = rope_theta^(-2i / rotary_dim)

    Su et al. 2021, RoFormer, arXiv:2104.09864, eq. 15.
    """

    name: ClassVar[str] = "none"
    changes: ClassVar[str] = "nothing: direct extrapolation"
    source: ClassVar[str] = "arXiv:2104.09864"
    promises: ClassVar[tuple[Promise, ...]] = ("positive", "identity")  # and does not interpolate
    as_it_is: ClassVar[bool] = True

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """The unscaled frequencies, whatever the length. Shape (rotary_dim // 2,)."""
        return RopeFrequencies(geometry.inv_freq)
