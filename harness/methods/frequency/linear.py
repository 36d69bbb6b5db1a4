"""Position interpolation."""

from dataclasses import dataclass
from typing import ClassVar

from harness.methods.base import RopeFrequencies, RopeGeometry, check_factor, resolved_factor


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Position interpolation (PI): every frequency divided by the factor.

        inv_freq'_i = inv_freq_i / factor

    Chen et al. 2023, arXiv:2306.15595, eq. 4. LongLoRA rounds the factor up: give it as `factor`.
    """

    factor: float | None = None  # None: max(1, length / original_max_position_embeddings)

    kind: ClassVar[str] = "frequency"
    changes: ClassVar[str] = "every frequency, divided by factor"
    source: ClassVar[str] = "arXiv:2306.15595"
    version: ClassVar[int] = 1
    depends_on_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_factor("linear", self.factor)

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Interpolated frequencies, the same for every length."""
        return RopeFrequencies(geometry.inv_freq / resolved_factor(self))
