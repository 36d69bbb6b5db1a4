"""Self-Extend."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from harness.methods.attention.base import AttentionMethod
from harness.methods.attention.regions import Region, check_tokens, far, near, positions, share
from harness.methods.base import RopeGeometry


@dataclass(frozen=True, kw_only=True)
class SelfExtend(AttentionMethod):
    """Self-Extend: true distances within `window`, distances between groups of `group` tokens beyond it.

        relative position = i - j if i - j < window,
                            else floor(i / group) - floor(j / group) + window - window / group

    Frequencies are the unscaled ones. Jin et al. 2024, arXiv:2401.01325, eq. 3-4, and its code. The shift
    window - window / group is a fraction where group does not divide window, as in the authors' present code;
    `floor_shift` rounds window / group down, as in the paper and their older code (less than one position apart).
    The authors name no defaults: 8 is the group of their patch's signature, a quarter of the trained length the
    window of their example (1024 of 4096).
    """

    group: int = 8  # tokens
    window: int | None = None  # tokens; None: original_max_position_embeddings / 4
    floor_shift: bool = False

    name: ClassVar[str] = "self_extend"
    changes: ClassVar[str] = "relative positions beyond a window, counted in groups of tokens"
    source: ClassVar[str] = "arXiv:2401.01325"

    def __post_init__(self) -> None:
        check_tokens(self.name, group=self.group, window=self.window)

    def resolved(self, geometry: RopeGeometry, length: int) -> Self:
        """With the default window filled in."""
        window = self.window or share(geometry.original_max_position_embeddings, 1, 4)
        return replace(self, window=window)

    def regions(self, length: int) -> tuple[Region, ...]:
        """Within the window, and beyond it with positions of groups, queries shifted; arrays of (length,)."""
        assert self.window is not None, "self_extend: resolve the window first"
        grouped = np.floor(positions(length) / self.group)
        return near(length, self.window), far(length, self.window, grouped + self._shift(self.window), grouped)

    def limit(self, geometry: RopeGeometry) -> int | None:
        """Longest window (tokens) whose relative positions were all trained.

        With L0 the trained length, group (L0 - window + floor(window / group)): the paper's (L0 - window) group +
        window where group divides window, below it where it does not.
        """
        assert self.window is not None, "self_extend: resolve the window first"
        trained = geometry.original_max_position_embeddings
        if self.window >= trained:
            return trained
        return self.group * (trained - self.window + self.window // self.group)

    def _shift(self, window: int) -> float:
        share_of_groups = window / self.group
        return window - (math.floor(share_of_groups) if self.floor_shift else share_of_groups)
