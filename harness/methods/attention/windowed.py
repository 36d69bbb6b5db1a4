"""Windowed attention with the first tokens kept: LM-Infinite and attention sinks."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np

from harness.errors import UserError
from harness.methods.attention.base import AttentionMethod
from harness.methods.attention.regions import Region, check_tokens, near, positions
from harness.methods.base import RopeGeometry, check_choice

Form = Literal["lm_infinite", "streaming"]
SINKS: dict[Form, int] = {"lm_infinite": 10, "streaming": 4}  # tokens


@dataclass(frozen=True, kw_only=True)
class Windowed(AttentionMethod):
    """A Lambda-shaped mask: every query sees the last `window` tokens and the first `sinks` of the window scored.

        relative position = i - j                                   if i - j < window
                            window                                  else if j < sinks    ("lm_infinite")
                            min(i, sinks + window - 1) - j          else if j < sinks    ("streaming")

    Everything else is masked; frequencies are the unscaled ones. "lm_infinite": Han et al. 2023, arXiv:2308.16137,
    section 4: window the trained length (so a first token is seen one position beyond training, as published),
    sinks 10 to 100. "streaming": Xiao et al. 2023, arXiv:2309.17453, section 3.2: positions count inside a cache of
    sinks + window tokens, 4 sinks, window the trained length less the sinks.
    """

    form: Form = "lm_infinite"
    window: int | None = None  # tokens
    sinks: int | None = None  # tokens

    name: ClassVar[str] = "windowed"
    changes: ClassVar[str] = "which keys are seen: the last ones and the first"
    source: ClassVar[str] = "arXiv:2308.16137, arXiv:2309.17453"

    def __post_init__(self) -> None:
        check_choice(self.name, "form", self.form, SINKS)
        check_tokens(self.name, window=self.window)
        check_tokens(self.name, 0, sinks=self.sinks)

    def resolved(self, geometry: RopeGeometry, length: int) -> Self:
        """With defaults filled in; UserError where the sinks leave no room for a window."""
        sinks = SINKS[self.form] if self.sinks is None else self.sinks
        trained = geometry.original_max_position_embeddings
        window = self.window or (trained if self.form == "lm_infinite" else trained - sinks)
        if window < 1:
            raise UserError(f"{self.name}: sinks must be < {trained} tokens (the trained length), got {sinks}.")
        return replace(self, window=window, sinks=sinks)

    def regions(self, length: int) -> tuple[Region, ...]:
        """Two regions: the last tokens, and the first ones where they are not among the last; arrays of (length,)."""
        assert self.window is not None, "windowed: resolve window first"
        assert self.sinks is not None, "windowed: resolve sinks first"
        rows = np.arange(length)
        end = np.clip(rows - self.window + 1, 0, self.sinks)
        queries, keys = np.full(length, float(self.window)), np.zeros(length)
        if self.form == "streaming":
            queries, keys = np.minimum(rows, self.sinks + self.window - 1.0), positions(length)
        return near(length, self.window), Region(np.zeros_like(rows), end, queries, keys)

    def limit(self, geometry: RopeGeometry) -> int | None:
        """Longest window (tokens) without relative positions beyond the trained or published ones; None: any."""
        assert self.window is not None, "windowed: resolve window first"
        assert self.sinks is not None, "windowed: resolve sinks first"
        trained = geometry.original_max_position_embeddings
        largest = self.window if self.form == "lm_infinite" else self.sinks + self.window
        return None if largest <= trained else trained
