"""ReRoPE."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from harness.methods.attention.base import AttentionMethod
from harness.methods.attention.regions import Region, check_tokens, far, near, share
from harness.methods.base import RopeGeometry


@dataclass(frozen=True, kw_only=True)
class ReRope(AttentionMethod):
    """ReRoPE: rectify relative positions, so that none is larger than `window`.

        relative position = i - j if i - j < window, else window

    Frequencies are the unscaled ones. Su 2023, github.com/bojone/rerope. The default window is a quarter of the
    trained length (the author's best lie between a quarter and a half); his code has 512 for a trained length of
    4096. His log-n scaling of queries is the modifier `query_scale` log_n.
    """

    window: int | None = None  # tokens; None: original_max_position_embeddings / 4

    name: ClassVar[str] = "rerope"
    changes: ClassVar[str] = "relative positions beyond a window, all set to the window"
    source: ClassVar[str] = "github.com/bojone/rerope"

    def __post_init__(self) -> None:
        check_tokens(self.name, window=self.window)

    def resolved(self, geometry: RopeGeometry, length: int) -> Self:
        """With the default window filled in."""
        window = self.window or share(geometry.original_max_position_embeddings, 1, 4)
        return replace(self, window=window)

    def regions(self, length: int) -> tuple[Region, ...]:
        """Within the window, and beyond it (queries all at `window`, keys all at 0); arrays of (length,)."""
        assert self.window is not None, "rerope: resolve the window first"
        everywhere = np.full(length, float(self.window))
        return near(length, self.window), far(length, self.window, everywhere, np.zeros(length))

    def limit(self, geometry: RopeGeometry) -> int | None:
        """Longest window (tokens) whose relative positions were all trained; None: any."""
        assert self.window is not None, "rerope: resolve the window first"
        trained = geometry.original_max_position_embeddings
        return None if self.window < trained else trained
