"""CoPE."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from harness.errors import UserError
from harness.methods.base import Promise, RopeFrequencies, RopeGeometry
from harness.methods.frequency.base import FrequencyMethod


@dataclass(frozen=True, kw_only=True)
class Cope(FrequencyMethod):
    """CoPE: the slowest frequencies are faded out, the last to zero.

        inv_freq'_i = inv_freq_i (1 + cos(pi j / (channels - 1))) / 2,    j = 0 .. channels - 1 over the last `channels`
    `hard`: they are all zero instead. The other frequencies stay, at every length. Without a number of channels, those
    whose period is longer than the trained length, which were never seen to turn once. The published checkpoints are
    trained with it (the last 20 of 64 channels of Llama 3); on others it is a test-time method.

    arXiv:2602.05258 and its code (hrlics/CoPE), which has the number of channels by hand.
    """

    channels: int | None = None  # pairs; None: those with a period above original_max_position_embeddings
    hard: bool = False

    name: ClassVar[str] = "cope"
    changes: ClassVar[str] = "the slowest frequencies, faded to zero"
    source: ClassVar[str] = "arXiv:2602.05258"
    promises: ClassVar[tuple[Promise, ...]] = ()  # the slowest is zero, at every length

    def __post_init__(self) -> None:
        least = 1 if self.hard else 2
        if self.channels is not None and self.channels < least:
            raise UserError(f"{self.name}: channels must be >= {least}, got {self.channels}.")

    def resolved(self, geometry: RopeGeometry, length: int) -> Self:
        """With the number of channels filled in; UserError where the geometry has fewer."""
        pairs = geometry.rotary_dim // 2
        slow = int(np.sum(2 * math.pi / geometry.inv_freq > geometry.original_max_position_embeddings))
        channels = slow if self.channels is None else self.channels
        if channels > pairs:
            raise UserError(f"{self.name}: channels must be <= {pairs} (rotary_dim / 2), got {channels}.")
        return replace(self, channels=max(channels, 2) if self.channels is None else channels)

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """Faded frequencies, the same for every length. Shape (rotary_dim // 2,)."""
        assert self.channels is not None, "cope: resolve channels before the call"
        inv_freq = geometry.inv_freq
        fade = (1 + np.cos(np.pi * np.arange(self.channels) / max(1, self.channels - 1))) / 2
        inv_freq[-self.channels :] *= 0 if self.hard else fade
        inv_freq[-1] = 0  # exactly
        return RopeFrequencies(inv_freq)
