"""What of needles a user chooses, and what a document with a needle asks."""

from dataclasses import dataclass, field
from typing import NamedTuple

from harness.data.needle_templates import KEYS, TEMPLATES
from harness.errors import UserError, unknown


class Asked(NamedTuple):
    """Which of the needles of a set a document holds."""

    depth: float  # share of the haystack before it, as asked for
    repeat: int  # its haystack, fact, numbers and distractors are those of all documents of this repeat
    right: bool  # the number in the fact is the one asked for; False: another one


@dataclass(frozen=True, kw_only=True)
class NeedleSpec:
    """A grid of documents of `ctx` tokens: for every depth and repeat one with the right number, one with a wrong one.

    A document is a haystack, in it a fact with a number, at its end the question for it, and the answer, which alone
    counts. `distractors` are facts of other keys with other numbers. All is drawn with the top-level seed.
    """

    depths: list[float] = field(default_factory=lambda: [i / 8 for i in range(9)], hash=False)
    repeats: int = 20
    distractors: int = 0
    digits: int = 5  # of a number
    templates: list[str] | None = field(default=None, hash=False)  # by name; None: all, by turns

    def __post_init__(self) -> None:
        for depth in self.depths:
            if type(depth) not in (int, float) or not 0 <= depth <= 1:
                raise UserError(f"data.needles.depths must lie between 0 (beginning) and 1 (end), got {depth!r}.")
        if not self.depths or len(set(self.depths)) < len(self.depths):
            raise UserError(f"data.needles.depths must be different numbers between 0 and 1, got {self.depths}.")
        object.__setattr__(self, "depths", [float(depth) for depth in self.depths])  # 1 and 1.0 are one grid
        if self.repeats < 1:
            raise UserError(f"data.needles.repeats must be at least 1, got {self.repeats}.")
        if not 0 <= self.distractors < len(KEYS["evaluation"]):
            most = len(KEYS["evaluation"]) - 1
            raise UserError(f"data.needles.distractors must lie between 0 and {most}, got {self.distractors}.")
        if not 3 <= self.digits <= 12:
            raise UserError(f"data.needles.digits must lie between 3 and 12, got {self.digits}.")
        for name in self.templates or []:
            if name not in TEMPLATES["evaluation"]:
                raise unknown("template (data.needles.templates)", str(name), TEMPLATES["evaluation"])
        if self.templates is not None and not self.templates:
            raise UserError("data.needles.templates must be null (all) or name at least one template, got [].")
