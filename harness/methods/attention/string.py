"""STRING."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, get_args

from harness.errors import UserError
from harness.methods.attention.base import AttentionMethod
from harness.methods.attention.regions import Region, check_tokens, far, near, positions
from harness.methods.base import RopeFrequencies, RopeGeometry, added, check_choice

Form = Literal["paper", "code"]
CODE_SCALING = 0.1 * math.log(2) + 1  # of cosines and sines, at every length


@dataclass(frozen=True, kw_only=True)
class String(AttentionMethod):
    """STRING: shifted rotary position embedding, so that far keys get the relative positions that training saw often.

        relative position = i - j                       if i - j < shift
                            i - j - shift + window      otherwise

    Frequencies are the unscaled ones. Meant within the trained length, whose longest distances are seldom trained:
    the largest relative position becomes length - 1 - shift + window. An et al. 2024, arXiv:2410.18745, section 4:
    shift a third of the window that is scored (0.25 to 0.4 of it), window 128. Its code (HKUNLP/STRING) sharpens
    attention as well, which the paper does not say: `form` "code" multiplies cosines and sines by 0.1 ln 2 + 1 =
    1.0693, YaRN's at factor 2, whatever the length. (In its prefill the pair at the distance of the shift also counts
    twice, in both regions; when it decodes, and here, once.)
    """

    form: Form = added("paper")
    shift: int | None = None  # tokens; None: int(0.33 length)
    window: int | None = None  # tokens that stay in order beside the diagonal; None: 128, at most the shift

    name: ClassVar[str] = "string"
    changes: ClassVar[str] = "relative positions beyond a shift, all less by it"
    source: ClassVar[str] = "arXiv:2410.18745"

    def __post_init__(self) -> None:
        check_choice(self.name, "form", self.form, get_args(Form))
        check_tokens(self.name, shift=self.shift)
        check_tokens(self.name, 0, window=self.window)
        if self.shift is not None and self.window is not None and self.window > self.shift:
            raise UserError(f"{self.name}: window must be <= shift ({self.shift} tokens), got {self.window}.")

    def resolved(self, geometry: RopeGeometry, length: int) -> Self:
        """With shift and window for windows of up to `length` tokens filled in."""
        shift = self.shift or max(1, int(0.33 * length))
        return replace(self, shift=shift, window=min(128, shift) if self.window is None else self.window)

    def __call__(self, geometry: RopeGeometry, length: int) -> RopeFrequencies:
        """The unscaled frequencies, (rotary_dim // 2,), and the form's multiplier of cosines and sines."""
        return RopeFrequencies(geometry.inv_freq, CODE_SCALING if self.form == "code" else 1.0)

    def regions(self, length: int) -> tuple[Region, ...]:
        """Nearer than the shift as they are, the others nearer by it; arrays of (length,)."""
        assert self.shift is not None, "string: resolve the shift first"
        assert self.window is not None, "string: resolve the window first"
        shifted = positions(length) - self.shift + self.window
        return near(length, self.shift), far(length, self.shift, shifted, positions(length))

    def limit(self, geometry: RopeGeometry) -> int | None:
        """Longest window (tokens) whose relative positions were all trained; None: any."""
        assert self.shift is not None, "string: resolve the shift first"
        assert self.window is not None, "string: resolve the window first"
        return geometry.original_max_position_embeddings + self.shift - self.window
