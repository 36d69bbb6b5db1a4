"""Mutation and crossover; both keep every constraint by construction."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from harness.longrope_search.space import STEPS_PER_UNIT, Genome, Space


def mutate(parent: Genome, space: Space, probability: float, rng: Generator) -> Genome:
    """Every gene drawn anew with this probability, the others kept.

    New factors come from the grid, uniformly over what the limits, the kept factors and the monotone constraint
    leave: a run of drawn factors lies, sorted, between its two kept neighbours. That is the distribution that drawing
    each over the whole space and rejecting non-monotone results would have, without its rejections.
    """
    critical = parent.critical_pair
    if critical is not None and rng.random() < probability:
        critical = int(rng.choice(space.critical_pairs))
    prefix = parent.unscaled_prefix
    if rng.random() < probability:
        prefix = int(rng.choice(space.n_hats))
    kept = np.array(space.clipped(np.array(parent.factors), critical))
    drawn = rng.random(space.pairs) < probability
    return Genome(tuple(_redraw(kept, drawn, space, critical, rng).tolist()), prefix, critical)


def _redraw(
    kept: NDArray[np.float64], drawn: NDArray[np.bool_], space: Space, critical: int | None, rng: Generator
) -> NDArray[np.float64]:
    factors = kept.copy()
    low, high = space.steps(critical)
    for begin, end in _runs(drawn):
        least = -np.inf if begin == 0 else kept[begin - 1]
        most = np.inf if end == len(kept) else kept[end]
        lowest = np.maximum(low[begin:end], np.ceil(least * STEPS_PER_UNIT - 1e-7))
        highest = np.minimum(high[begin:end], np.floor(most * STEPS_PER_UNIT + 1e-7))
        if np.all(lowest <= highest):  # else no point of the grid lies between two seeds' factors: they stay
            steps = np.sort(rng.integers(lowest.astype(np.int64), highest.astype(np.int64), endpoint=True))
            factors[begin:end] = np.clip(steps / STEPS_PER_UNIT, least, most)
    return factors


def _runs(drawn: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where `drawn` is true, as [begin, end) runs."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], drawn, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def cross(first: Genome, second: Genome, space: Space, rng: Generator) -> Genome:
    """The factors of one parent up to a random pair and of the other from there on; other genes from either.

    Which parent comes first is drawn, too, unless the monotone constraint decides it.
    """
    cut = int(rng.integers(1, space.pairs)) if space.pairs > 1 else 0
    orders = [(a, b) for a, b in ((first, second), (second, first)) if cut == 0 or a.factors[cut - 1] <= b.factors[cut]]
    low, high = orders[int(rng.integers(len(orders)))]
    critical = first.critical_pair if rng.random() < 0.5 else second.critical_pair
    prefix = first.unscaled_prefix if rng.random() < 0.5 else second.unscaled_prefix
    factors = np.array(low.factors[:cut] + high.factors[cut:])
    return Genome(space.clipped(factors, critical), prefix, critical)
