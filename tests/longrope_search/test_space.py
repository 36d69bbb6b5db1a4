"""The search space: constraints, the seeds, the critical pair."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from harness import methods
from harness.longrope_search.space import Genome, Space, critical_pair, seeds
from harness.methods import RopeGeometry
from tests.longrope_search.spaces import CTX, GEOMETRY, LLAMA2, SMALL, SPACES, check, history


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_every_individual_keeps_every_constraint(space: Space) -> None:
    start = seeds(space, CTX)
    inherited = {value for genome in start.values() for value in genome.factors}
    individuals = history(space, replace(SMALL, iterations=30))
    assert len(individuals) == 12 + 30 * 12
    for one in individuals:
        check(one.genome, space, inherited)
        assert space.admits(one.genome)
    assert len({one.genome.key for one in individuals}) == len(individuals)  # none paid twice
    assert {one.genome.unscaled_prefix for one in individuals} <= set(space.n_hats)


@pytest.mark.parametrize(
    "factors",
    [[2.0] * 15, [1.0] * 15 + [10.01], [0.99] + [1.0] * 15, [1.0, 3.0, 2.0] + [4.0] * 13],
    ids=["too few", "above 1.25 s", "below 1", "not monotone"],
)
def test_what_breaks_a_constraint_is_not_admitted(factors: list[float]) -> None:
    space = SPACES["longrope"]
    assert not space.admits(Genome(tuple(factors)))
    assert not space.admits(Genome((2.0,) * 16, unscaled_prefix=3))
    assert space.admits(Genome((2.0,) * 16, unscaled_prefix=256))


def test_seeds_are_the_methods() -> None:
    start = seeds(SPACES["longrope"], CTX)
    assert set(start) == {"linear", "ntk", "yarn"}
    assert start["linear"].factors == (8.0,) * 16
    assert_allclose(start["ntk"].factors, 8.0 ** (np.arange(16) / 15), rtol=1e-12)
    # YaRN by hand: d ln(L0 / (2 pi r)) / (2 ln base) = 1.62 for 32 turns, 7.64 for one: a ramp from pair 1 to 8
    share = np.clip((np.arange(16) - 1) / 7, 0, 1)
    assert_allclose(start["yarn"].factors, 1 / (1 - share + share / 8), rtol=1e-12)
    for name, genome in start.items():
        ours = genome.method(8.0, "none")(GEOMETRY, CTX).inv_freq
        assert_allclose(ours, methods.build(name, {}, GEOMETRY, CTX)(GEOMETRY, CTX).inv_freq, rtol=1e-12)


def test_longrope2_starts_from_a_power_and_splits_its_limits() -> None:
    space = SPACES["longrope2"]
    start = seeds(space, CTX)
    assert_allclose(start["longrope2"].factors, [8.0 ** min(1, i / 7) for i in range(16)], rtol=1e-12)
    low, high = space.limits(None)
    assert low.tolist() == [1.0] * 7 + [8.0] * 9
    assert high.tolist() == [13.0] * 16
    assert all(space.admits(genome) for genome in start.values())


def test_the_critical_pair_is_that_of_the_paper() -> None:
    # ceil(64 log_10000(4096 / 2 pi)) - 1 = ceil(45.03) - 1; Llama 3: ceil(64 log_500000(8192 / 2 pi)) - 1 = 34
    assert critical_pair(LLAMA2) == 45
    assert critical_pair(RopeGeometry(rotary_dim=128, rope_theta=5e5, original_max_position_embeddings=8192)) == 34
    assert critical_pair(GEOMETRY) == 7
