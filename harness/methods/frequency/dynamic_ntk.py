"""Dynamic NTK scaling."""

from dataclasses import dataclass
from typing import ClassVar

from harness.methods.base import RopeFrequencies, RopeGeometry, check_multiplier, growth
from harness.methods.frequency.base import FrequencyMethod
from harness.methods.frequency.ntk import ntk_aware


@dataclass(frozen=True, kw_only=True)
class DynamicNtk(FrequencyMethod):
    """Dynamic NTK: NTK-aware scaling by how much longer than the trained length the window is.

        alpha = factor s - (factor - 1),    s = max(1, length / original_max_position_embeddings)
    `factor` 1 is the paper: alpha = s. A larger one is the convention of transformers' "dynamic" rope type,
    which stretches more than the length asks for: factor 8 at s = 8 gives alpha 57, not 8, and a last
    frequency 7.1 times lower. SGLang 0.5 keeps that alpha of the full extension at every length: that is `ntk` with
    factor f^2 - f + 1 (as vLLM did before it asked for the trained length).

    emozilla 2023; Peng et al. 2023, arXiv:2309.00071, section 3.3. A window's frequencies are those of the
    whole window; code that caches rotated keys mixes the frequencies of many lengths.
    """

    factor: float = 1.0

    name: ClassVar[str] = "dynamic_ntk"
    changes: ClassVar[str] = "the base, growing with the window"
    source: ClassVar[str] = "arXiv:2309.00071"
    depends_on_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_multiplier(self.name, self.factor)

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Frequencies for windows of `length` tokens, unscaled up to the trained length. Shape (rotary_dim // 2,)."""
        alpha = self.factor * growth(geometry, length) - (self.factor - 1)
        return RopeFrequencies(ntk_aware(geometry, alpha))
