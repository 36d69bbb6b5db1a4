"""Small search spaces, their constraints written anew, and a loss with a known optimum."""

import itertools
import math

import numpy as np

from harness.longrope_search.evolution import Evolution, Individual, evolve
from harness.longrope_search.space import Genome, Space, seeds
from harness.methods import RopeGeometry

GEOMETRY = RopeGeometry(rotary_dim=32, rope_theta=10_000.0, original_max_position_embeddings=512)
LLAMA2 = RopeGeometry(rotary_dim=128, rope_theta=10_000.0, original_max_position_embeddings=4096)
CTX = 4096
SPACES = {
    "longrope": Space(geometry=GEOMETRY, factor=8.0),
    "no n-hat": Space(geometry=GEOMETRY, factor=8.0, n_hats=(0,)),
    "off the grid": Space(geometry=GEOMETRY, factor=CTX / 600),
    "longrope2": Space(geometry=GEOMETRY, factor=8.0, variant="longrope2", critical_pairs=(7,)),
    "searched pair": Space(geometry=GEOMETRY, factor=CTX / 600, variant="longrope2", critical_pairs=(3, 4, 5, 6, 7)),
}
SMALL = Evolution(population=12, mutations=6, crossovers=6, iterations=12, parents=6)


def check(genome: Genome, space: Space, inherited: set[float]) -> None:
    """The constraints, written anew from the paper: range, order, grid, n-hat."""
    factors = genome.factors
    ceiling = 1.25 * space.factor
    floor = [1.0] * len(factors)
    tops = [ceiling] * len(factors)
    if space.variant == "longrope2":
        pair = space.critical_pairs[0] if genome.critical_pair is None else genome.critical_pair
        assert pair in space.critical_pairs
        floor = [1.0 if i < pair else space.factor for i in range(len(factors))]
        tops = [space.factor + 5 if i < pair else max(ceiling, space.factor + 5) for i in range(len(factors))]
    assert len(factors) == space.geometry.rotary_dim // 2
    assert all(low - 1e-9 <= value <= top + 1e-9 for value, low, top in zip(factors, floor, tops, strict=True))
    assert all(a <= b for a, b in itertools.pairwise(factors))
    limits = {*floor, *tops}
    for value in factors:
        assert abs(value * 100 - round(value * 100)) < 1e-6 or value in inherited or value in limits, value
    assert genome.unscaled_prefix in space.n_hats


def distance(space: Space):
    """A loss with a known optimum on the grid: a curve that is none of the seeds."""
    pairs = space.geometry.rotary_dim // 2
    target = np.round(np.linspace(1.0, math.sqrt(1.2 * space.factor), pairs) ** 2, 2)
    target = np.clip(target, *space.limits(space.critical_pairs[0] if space.critical_pairs else None))

    def evaluate(genomes):
        return [
            float(
                np.mean(np.abs(np.log(np.array(g.factors) / target))) + 0.01 * (g.unscaled_prefix != space.n_hats[-1])
            )
            for g in genomes
        ]

    return evaluate


def history(space: Space, evolution: Evolution, seed: int = 0, before: list[Individual] | None = None):
    before = before or []
    generations = evolve(space, seeds(space, CTX), evolution, distance(space), seed, before)
    return before + [one for born in generations for one in born]
