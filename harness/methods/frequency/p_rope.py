"""p-RoPE at test time."""

from dataclasses import dataclass
from typing import ClassVar

from harness.errors import UserError
from harness.methods.base import Promise, RopeFrequencies, RopeGeometry
from harness.methods.frequency.base import FrequencyMethod


@dataclass(frozen=True, kw_only=True)
class PRope(FrequencyMethod):
    """p-RoPE: a share of the frequencies, the fastest, stays; the others are zero and carry no position.

        inv_freq'_i = inv_freq_i for i < floor(share rotary_dim / 2),    0 for the slower ones
    Barbero et al. 2024, arXiv:2410.06205, train with it; put on a finished model it is a test-time method. (Models
    that declare it themselves, rope type `proportional`, keep it under `native`.)
    """

    share: float = 0.75  # of the frequencies that stay

    name: ClassVar[str] = "p_rope"
    changes: ClassVar[str] = "the slowest frequencies, all zero"
    source: ClassVar[str] = "arXiv:2410.06205"
    promises: ClassVar[tuple[Promise, ...]] = ()  # the slowest are zero, at every length

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UserError(f"{self.name}: share must lie in [0, 1], got {self.share}.")

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Frequencies, the slowest zero, the same for every length. Shape (rotary_dim // 2,)."""
        inv_freq = geometry.inv_freq
        inv_freq[int(self.share * geometry.rotary_dim / 2) :] = 0
        return RopeFrequencies(inv_freq)
