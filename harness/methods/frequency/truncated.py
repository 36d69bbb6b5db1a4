"""Giraffe's truncated basis."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from harness.errors import UserError
from harness.methods.base import Promise, RopeFrequencies, RopeGeometry, check_multiplier
from harness.methods.frequency.base import FrequencyMethod


@dataclass(frozen=True, kw_only=True)
class Truncated(FrequencyMethod):
    """Truncated basis (Giraffe): frequencies that turn too little in training are fixed, the slowest at zero.

        c = 2 pi / length:    inv_freq >= c keeps;    c / 8 <= inv_freq < c becomes c / 16;    below, 0
    on frequencies already divided by `factor` and, where `exponent` is above 0, scaled as in `power`. Channels
    of frequency zero carry no position.

    Pal et al. 2023, arXiv:2308.10882; cut-offs c / 8 and c and the middle value c / 16 of the authors' code.
    """

    cutoff_length: int | None = None  # tokens; None: original_max_position_embeddings
    factor: float = 1.0
    exponent: float = 0.0

    name: ClassVar[str] = "truncated"
    changes: ClassVar[str] = "slow frequencies: one small constant, the slowest zero"
    source: ClassVar[str] = "arXiv:2308.10882"
    promises: ClassVar[tuple[Promise, ...]] = ()  # the length does not enter, the slowest are zero

    def __post_init__(self) -> None:
        check_multiplier(self.name, self.factor)
        if not 0 <= self.exponent < math.inf:
            raise UserError(f"{self.name}: exponent must be finite and >= 0, got {self.exponent}.")
        if self.cutoff_length is not None and self.cutoff_length < 1:
            raise UserError(f"{self.name}: cutoff_length must be >= 1 token, got {self.cutoff_length}.")

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Truncated frequencies, the same for every length. Shape (rotary_dim // 2,)."""
        position = np.arange(0, geometry.rotary_dim, 2, dtype=np.float64) / geometry.rotary_dim
        inv_freq = geometry.inv_freq / self.factor * (1 - position) ** self.exponent
        cutoff = 2 * math.pi / (self.cutoff_length or geometry.original_max_position_embeddings)
        slow = np.where(inv_freq >= cutoff / 8, cutoff / 16, 0.0)
        return RopeFrequencies(np.where(inv_freq >= cutoff, inv_freq, slow))
