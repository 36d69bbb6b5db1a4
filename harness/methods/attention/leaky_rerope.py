"""Leaky ReRoPE."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from harness.methods.attention.base import AttentionMethod
from harness.methods.attention.regions import Region, check_tokens, far, near, positions, share
from harness.methods.base import RopeGeometry, check_multiplier


@dataclass(frozen=True, kw_only=True)
class LeakyReRope(AttentionMethod):
    """Leaky ReRoPE: true distances within `window`, distances beyond it growing `factor` times more slowly.

        relative position = i - j if i - j < window, else window + (i - j - window) / factor

    Frequencies are the unscaled ones. Su 2023, github.com/bojone/rerope, where factor is 16 and the window 512 for
    a trained length of 4096: an eighth of it, the default here. Factor 1 is direct extrapolation, an infinite one
    is ReRoPE.
    """

    factor: float = 16.0
    window: int | None = None  # tokens; None: original_max_position_embeddings / 8

    name: ClassVar[str] = "leaky_rerope"
    changes: ClassVar[str] = "relative positions beyond a window, growing factor times more slowly"
    source: ClassVar[str] = "github.com/bojone/rerope"

    def __post_init__(self) -> None:
        check_multiplier(self.name, self.factor)
        check_tokens(self.name, window=self.window)

    def resolved(self, geometry: RopeGeometry, length: int) -> Self:
        """With the default window filled in."""
        window = self.window or share(geometry.original_max_position_embeddings, 1, 8)
        return replace(self, window=window)

    def regions(self, length: int) -> tuple[Region, ...]:
        """Up to the window; beyond it, positions divided and queries moved back by the rest; arrays of (length,).

        At `window` both say the same; counted as near, it leaves blocks of so many rows edges that need no mask.
        """
        assert self.window is not None, "leaky_rerope: resolve the window first"
        divided = positions(length) / self.factor
        queries = divided + self.window * (1 - 1 / self.factor)
        return near(length, self.window + 1), far(length, self.window + 1, queries, divided)

    def limit(self, geometry: RopeGeometry) -> int | None:
        """Longest window (tokens) whose relative positions were all trained.

        That is factor (L0 - 1 - window) + window + 1 with L0 the trained length.
        """
        assert self.window is not None, "leaky_rerope: resolve the window first"
        trained = geometry.original_max_position_embeddings
        if self.window >= trained:
            return trained
        return math.floor(self.factor * (trained - 1 - self.window)) + self.window + 1
