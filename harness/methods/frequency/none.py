"""No scaling: direct extrapolation."""

from dataclasses import dataclass
from typing import ClassVar

from harness.methods.base import RopeFrequencies, RopeGeometry


@dataclass(frozen=True, kw_only=True)
class Unscaled:
    """Direct extrapolation: the frequencies of training at every position.

        inv_freq'_i = inv_freq_i = rope_theta^(-2i / rotary_dim)

    Su et al. 2021, RoFormer, arXiv:2104.09864, eq. 15.
    """

    kind: ClassVar[str] = "frequency"
    changes: ClassVar[str] = "nothing: direct extrapolation"
    source: ClassVar[str] = "arXiv:2104.09864"
    version: ClassVar[int] = 1
    depends_on_length: ClassVar[bool] = False

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """The unscaled frequencies, whatever the length."""
        return RopeFrequencies(geometry.inv_freq)
