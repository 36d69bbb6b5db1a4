"""The evolution: generations of genomes, each a function of the seed and of the losses before it."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from harness.errors import UserError
from harness.longrope_search.operators import cross, mutate
from harness.longrope_search.space import Genome, Space

TRIES = 100  # to draw a genome that was not evaluated before; small spaces run out of them

Evaluate = Callable[[Sequence[Genome]], Sequence[float]]  # genomes -> mean losses in nats a token


@dataclass(frozen=True, kw_only=True)
class Evolution:
    """Sizes of the search; the defaults are the paper's, arXiv:2402.13753, appendix A.1."""

    population: int = 64
    mutations: int = 16  # a generation
    crossovers: int = 16
    iterations: int = 40
    parents: int = 32  # best individuals of all generations, from which the next is bred
    mutation_probability: float = 0.3  # of each gene

    def __post_init__(self) -> None:
        for name, least in (("population", 1), ("mutations", 0), ("crossovers", 0), ("iterations", 0), ("parents", 1)):
            if getattr(self, name) < least:
                raise UserError(f"search.{name} must be at least {least}, got {getattr(self, name)}.")
        if not 0 < self.mutation_probability <= 1:
            raise UserError(f"search.mutation_probability must be in (0, 1], got {self.mutation_probability}.")


class Individual(NamedTuple):
    """A genome that was evaluated."""

    genome: Genome
    nll: float  # mean over the search set, nats a token
    generation: int
    origin: str  # a seed's name, mutation or crossover


def evolve(
    space: Space,
    seeds: Mapping[str, Genome],
    evolution: Evolution,
    evaluate: Evaluate,
    seed: int,
    history: Sequence[Individual] = (),
) -> Iterator[list[Individual]]:
    """One generation after the other, the first being the seeds and their mutations.

    `history`: individuals of whole generations that were evaluated before, to go on from. Each generation draws from
    a generator of its own, seeded by (seed, generation), so that an interrupted search goes on as if it had not been.
    """
    known = list(history)
    begin = known[-1].generation + 1 if known else 0
    for generation in range(begin, evolution.iterations + 1):
        rng = np.random.default_rng([seed, generation])
        bred = _breed(space, seeds, evolution, known, rng) if generation else _first(space, seeds, evolution, rng)
        genomes = [genome for genome, _ in bred]
        losses = evaluate(genomes)
        born = [Individual(g, nll, generation, o) for (g, o), nll in zip(bred, losses, strict=True)]
        known += born
        yield born


def best(individuals: Sequence[Individual], count: int) -> list[Individual]:
    """The `count` individuals of lowest loss; of equal ones the earlier."""
    return sorted(individuals, key=lambda one: one.nll)[:count]


Bred = list[tuple[Genome, str]]


def _first(space: Space, seeds: Mapping[str, Genome], evolution: Evolution, rng: Generator) -> Bred:
    """The seeds, and mutations of each, one after another, until the population is full."""
    bred: Bred = [(genome, name) for name, genome in seeds.items()]
    taken = {genome.key for genome, _ in bred}
    parents = itertools.islice(itertools.cycle(seeds.values()), max(0, evolution.population - len(bred)))
    for parent in parents:
        draw = partial(mutate, parent, space, evolution.mutation_probability, rng)
        bred.append((_new(draw, taken), "mutation"))
    return bred


def _breed(
    space: Space, seeds: Mapping[str, Genome], evolution: Evolution, known: Sequence[Individual], rng: Generator
) -> Bred:
    """Mutations and crossovers of the best individuals so far."""
    parents = [one.genome for one in best(known, evolution.parents)]
    taken = {one.genome.key for one in known}

    def mutant() -> Genome:
        return mutate(parents[rng.integers(len(parents))], space, evolution.mutation_probability, rng)

    def child() -> Genome:
        first, second = rng.choice(len(parents), size=2, replace=len(parents) < 2)
        return cross(parents[first], parents[second], space, rng)

    mutations = [(_new(mutant, taken), "mutation") for _ in range(evolution.mutations)]
    return mutations + [(_new(child, taken, mutant), "crossover") for _ in range(evolution.crossovers)]


def _new(draw: Callable[[], Genome], taken: set[str], otherwise: Callable[[], Genome] | None = None) -> Genome:
    """A genome that is not among those taken, if TRIES draws find one; it is then.

    Parents that have grown alike have no new children: `otherwise` draws in their place.
    """
    for _ in range(TRIES):
        genome = draw()
        if genome.key not in taken:
            break
    else:
        if otherwise is not None:
            return _new(otherwise, taken)
    taken.add(genome.key)
    return genome
