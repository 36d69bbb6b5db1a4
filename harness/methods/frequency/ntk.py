"""NTK-aware scaling: a larger base."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.methods.base import RopeFrequencies, RopeGeometry, check_factor, resolved_factor
from harness.methods.frequency.base import FrequencyMethod


@dataclass(frozen=True, kw_only=True)
class Ntk(FrequencyMethod):
    """NTK-aware scaling: the base grows until the slowest dimension is interpolated by the whole factor.

        inv_freq'_i = base'^(-2i / d),    base' = rope_theta factor^(d / (d - 2)),    d = rotary_dim
    The first frequency stays, the last is divided by `factor` exactly.

    bloc97 2023, "NTK-Aware Scaled RoPE"; written down in Peng et al. 2023, arXiv:2309.00071, section 3.1.
    SGLang's "dynamic" scaling by f, a constant whatever the sequence, is this method with factor f^2 - f + 1.
    """

    factor: float | None = None  # None: max(1, length / original_max_position_embeddings)

    name: ClassVar[str] = "ntk"
    changes: ClassVar[str] = "the base, so that the last frequency is divided by factor"
    source: ClassVar[str] = "arXiv:2309.00071"

    def __post_init__(self) -> None:
        check_factor(self.name, self.factor)

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Frequencies of the enlarged base, the same for every length. Shape (rotary_dim // 2,)."""
        return RopeFrequencies(ntk_aware(geometry, resolved_factor(self)))


def ntk_aware(geometry: RopeGeometry, factor: float) -> NDArray[np.float64]:
    """NTK-aware frequencies, shape (rotary_dim // 2,), radians a token; UserError where rotary_dim is 2."""
    if geometry.rotary_dim == 2:
        raise UserError("NTK-aware scaling needs rotary_dim >= 4 (one frequency has no base), got 2.")
    # exponents d/(d-2) and 2i/d multiplied out, so that the last frequency is inv_freq / factor exactly
    pair = np.arange(geometry.rotary_dim // 2, dtype=np.float64)
    return geometry.inv_freq * factor ** (-pair / (geometry.rotary_dim / 2 - 1))
