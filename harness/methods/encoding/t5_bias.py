"""T5's relative bias."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.errors import UserError
from harness.methods.encoding.base import Encoding, Parameter, Shape

if TYPE_CHECKING:
    from harness.methods.encoding.modules.base import EncodingModule


@dataclass(frozen=True, kw_only=True)
class T5Bias(Encoding):
    """A learned bias for each head and each bucket of distances, added to the score; shared by all layers.

        bucket(r) = r                                                       r < e = buckets / 2
                    min(buckets - 1, e + floor((buckets - e) ln(r / e) / ln(max_distance / e)))   otherwise
    with r = i - j. Raffel et al. 2020, arXiv:1910.10683, section 2.1. T5 leaves out the scale 1 / sqrt(head_dim) of
    scores; here it is kept, as in every other encoding.
    """

    buckets: int | None = None  # None: 32
    max_distance: int | None = None  # tokens; None: 128

    name: ClassVar[str] = "t5_bias"
    changes: ClassVar[str] = "scores: a learned bias for each bucket of distances"
    source: ClassVar[str] = "arXiv:1910.10683"
    why_not: ClassVar[str] = "every distance beyond the last bucket already has its bias"

    def __post_init__(self) -> None:
        if self.buckets is not None and (self.buckets < 2 or self.buckets % 2):
            raise UserError(f"{self.name}: buckets must be even and >= 2, got {self.buckets}.")
        least = (self.buckets or 32) // 2
        if self.max_distance is not None and self.max_distance <= least:
            raise UserError(
                f"{self.name}: max_distance must be > buckets / 2 = {least} tokens, got {self.max_distance}."
            )

    def defaults(self, trained: int) -> dict[str, Parameter]:
        """T5's own."""
        return {"buckets": 32, "max_distance": 128}

    def module(self, shape: Shape) -> "EncodingModule":
        """The biases of the buckets."""
        from harness.methods.encoding.modules.biases import T5

        assert self.buckets is not None
        assert self.max_distance is not None
        return T5(edges(self.buckets, self.max_distance), self.buckets, shape.num_heads)


def edges(buckets: int, max_distance: int) -> list[int]:
    """The first distance of every bucket but the first: bucket b holds edges[b - 1] <= r < edges[b]."""
    exact = buckets // 2
    found = list(range(1, exact + 1))
    for bucket in range(exact + 1, buckets):
        first = exact * (max_distance / exact) ** ((bucket - exact) / (buckets - exact))
        near = math.ceil(first - 1e-9)  # a power that is whole but for rounding begins its bucket
        found.append(near)
    return found
