"""Adjusted base frequency."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, get_args

from harness.errors import UserError
from harness.methods.base import Promise, RopeFrequencies, RopeGeometry, added, check_choice
from harness.methods.frequency.base import FrequencyMethod

Base = Literal["given", "beta0"]


@dataclass(frozen=True, kw_only=True)
class Abf(FrequencyMethod):
    """Adjusted base frequency (ABF): another base, chosen by hand.

        inv_freq'_i = base^(-2i / rotary_dim),    base = this method's rope_theta instead of the checkpoint's
    500 000 in Llama 2 Long, 1 000 000 in Code Llama. A base below the checkpoint's is allowed: small bases
    extrapolate too (Liu et al. 2023, arXiv:2310.05209). With `base` "beta0" it is the one that, by their theorem 2,
    just reaches the window:

        beta_0 = checkpoint's base ^ log_{trained / 2 pi}(length / 2 pi)
    Xiong et al. 2023, arXiv:2309.16039.
    """

    rope_theta: float = 500_000.0
    base: Base = added("given")  # beta0: computed for the window, in place of rope_theta

    name: ClassVar[str] = "abf"
    changes: ClassVar[str] = "the base"
    source: ClassVar[str] = "arXiv:2309.16039"
    promises: ClassVar[tuple[Promise, ...]] = ("positive",)  # another base at every length

    def __post_init__(self) -> None:
        check_choice(self.name, "base", self.base, get_args(Base))
        if not 1 < self.rope_theta < math.inf:
            raise UserError(f"{self.name}: rope_theta must be finite and > 1, got {self.rope_theta}.")

    def resolved(self, geometry: RopeGeometry, length: int) -> Self:
        """With the base for windows of `length` tokens, where it is to be computed."""
        if self.base == "given":
            return self
        turns = geometry.original_max_position_embeddings / (2 * math.pi)
        exponent = math.log(max(length, geometry.original_max_position_embeddings) / (2 * math.pi), turns)
        return replace(self, rope_theta=geometry.rope_theta**exponent)

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Frequencies of the other base, the same for every length. Shape (rotary_dim // 2,)."""
        return RopeFrequencies(replace(geometry, rope_theta=self.rope_theta).inv_freq)
