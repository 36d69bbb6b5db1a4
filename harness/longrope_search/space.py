"""The search space: one rescale factor a frequency, non-decreasing, on a grid; n-hat; LongRoPE2's critical pair."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness import methods
from harness.methods.base import Method, RopeGeometry
from harness.methods.frequency.longrope import LongRope
from harness.storage import cache

STEPS_PER_UNIT = 100  # the grid: factors are multiples of 0.01
N_HATS = (0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 64, 128, 256)  # tokens; the paper's table 3
SEED_METHODS = ("linear", "ntk", "yarn")
Array = NDArray[np.float64]
Variant = Literal["longrope", "longrope2"]  # longrope2: limits split at the critical pair


class Genome(NamedTuple):
    """What evolves: all in which individuals differ."""

    factors: tuple[float, ...]  # (rotary_dim // 2,), wavelength over unscaled wavelength
    unscaled_prefix: int = 0  # tokens, the paper's n-hat
    critical_pair: int | None = None  # LongRoPE2 with a searched critical pair: its index

    @property
    def key(self) -> str:
        """The same text for equal genomes, and a file name."""
        return cache.digest([list(self.factors), self.unscaled_prefix, self.critical_pair])

    def method(self, factor: float, temperature: str | float | None) -> LongRope:
        """The method that these genes are of, at an extension by `factor`."""
        return LongRope(
            long_factor=list(self.factors),
            factor=factor,
            temperature=temperature,
            unscaled_prefix=self.unscaled_prefix,
        )


class Limits(NamedTuple):
    """Least and largest factor of every pair, each (rotary_dim // 2,) and non-decreasing."""

    low: Array
    high: Array


@dataclass(frozen=True, kw_only=True)
class Space:
    """What individuals may be, at an extension of the trained length by `factor`.

    "longrope": factors in [1, 1.25 factor], arXiv:2402.13753, table 3. "longrope2": [1, factor + 5] below the critical
    pair, [factor, max(1.25 factor, factor + 5)] from it on; the paper (arXiv:2502.20082) names no number for the upper
    end, and this one keeps both parts reachable under the monotone constraint.
    """

    geometry: RopeGeometry
    factor: float
    variant: Variant = "longrope"
    n_hats: tuple[int, ...] = N_HATS
    critical_pairs: tuple[int, ...] = ()  # longrope2: one if it is given, several if it is searched

    @property
    def pairs(self) -> int:
        """Number of frequencies."""
        return self.geometry.rotary_dim // 2

    def limits(self, critical_pair: int | None) -> Limits:
        """The least and the largest factor of each pair."""
        low, high = np.ones(self.pairs), np.full(self.pairs, 1.25 * self.factor)
        if self.variant == "longrope2":
            critical = self.critical_pairs[0] if critical_pair is None else critical_pair
            low[critical:] = self.factor
            high[:critical] = self.factor + 5
            high[critical:] = max(1.25 * self.factor, self.factor + 5)
        return Limits(low, high)

    def steps(self, critical_pair: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The limits as whole steps of the grid, inside of them, each (rotary_dim // 2,)."""
        low, high = self.limits(critical_pair)
        inside = 1e-9 * STEPS_PER_UNIT
        return (
            np.ceil(low * STEPS_PER_UNIT - inside).astype(np.int64),
            np.floor(high * STEPS_PER_UNIT + inside).astype(np.int64),
        )

    def admits(self, genome: Genome) -> bool:
        """Whether a genome keeps every constraint but the grid, which inherited genes of seeds need not be on."""
        factors = np.array(genome.factors)
        low, high = self.limits(genome.critical_pair)
        return bool(
            factors.shape == (self.pairs,)
            and np.all(np.diff(factors) >= 0)
            and np.all(low - 1e-9 <= factors)
            and np.all(factors <= high + 1e-9)
            and genome.unscaled_prefix in self.n_hats
            and (genome.critical_pair is None or genome.critical_pair in self.critical_pairs)
        )

    def clipped(self, factors: Array, critical_pair: int | None) -> tuple[float, ...]:
        """Factors brought inside the limits; monotone ones stay so, since the limits are monotone."""
        return tuple(np.clip(factors, *self.limits(critical_pair)).tolist())


def critical_pair(geometry: RopeGeometry) -> int:
    """LongRoPE2's theoretical critical pair, ceil(d / 2 log_base(L0 / 2 pi)) - 1: the last to rotate once in training.

    arXiv:2502.20082; at least 1, at most the last pair.
    """
    rotations = geometry.original_max_position_embeddings / (2 * math.pi)
    index = math.ceil(geometry.exponent_dim / 2 * math.log(rotations) / math.log(geometry.rope_theta)) - 1
    return min(max(1, index), geometry.rotary_dim // 2 - 1)


def seeds(space: Space, ctx: int) -> dict[str, Genome]:
    """The individuals that the search begins with, by the method that they are: exempt from the grid.

    LongRoPE: PI, NTK and YaRN at the target length. LongRoPE2: these brought inside its limits, and its own start
    factor^(i / critical pair).
    """
    critical = space.critical_pairs[-1] if space.critical_pairs else None
    gene = critical if len(space.critical_pairs) > 1 else None
    unscaled = space.geometry.inv_freq
    curves = {name: unscaled / _method(name, space, ctx)(space.geometry, ctx).inv_freq for name in SEED_METHODS}
    if critical is not None:
        curves["longrope2"] = space.factor ** np.minimum(1, np.arange(space.pairs) / critical)
    rounded = {name: np.round(curve, 12) for name, curve in curves.items()}  # equal factors differ in their last bits
    return {name: Genome(space.clipped(curve, gene), 0, gene) for name, curve in rounded.items()}


def _method(name: str, space: Space, ctx: int) -> Method:
    return methods.build(name, {"factor": space.factor}, space.geometry, ctx)


def on_grid(factors: Sequence[float]) -> NDArray[np.bool_]:
    """Which factors, (pairs,), are multiples of the grid's step, as booleans (pairs,)."""
    steps = np.array(factors) * STEPS_PER_UNIT
    return np.abs(steps - np.round(steps)) < 1e-6
