"""Mutation and crossover keep the constraints and draw what they say."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from harness.longrope_search import operators
from harness.longrope_search.space import N_HATS, Genome, Space, on_grid, seeds
from harness.methods import RopeGeometry
from tests.longrope_search.spaces import CTX, SPACES, check


def test_mutation_changes_only_what_is_drawn_and_draws_from_the_grid() -> None:
    space = SPACES["no n-hat"]
    parent = seeds(space, CTX)["ntk"]
    rng = np.random.default_rng(0)
    changed = np.zeros(16)
    for _ in range(2000):
        child = operators.mutate(parent, space, 0.3, rng)
        differs = np.array(child.factors) != np.array(parent.factors)
        assert on_grid(np.array(child.factors)[differs]).all()
        changed += differs
    # each factor is drawn with probability 0.3; binomial standard error 0.01, and a draw may hit a clipped neighbour
    assert_allclose(changed / 2000, 0.3, atol=0.05)
    everything = operators.mutate(parent, space, 1.0, rng)
    assert np.all(np.array(everything.factors) != np.array(parent.factors))
    assert np.ptp(everything.factors) > 3


def test_mutation_draws_what_rejection_would_draw() -> None:
    geometry = RopeGeometry(rotary_dim=4, rope_theta=100.0, original_max_position_embeddings=64)
    space = Space(geometry=geometry, factor=1.0, n_hats=(0,))  # factors in [1, 1.25]: 26 steps
    rng = np.random.default_rng(1)
    ours = np.array([operators.mutate(Genome((1.0, 1.25)), space, 1.0, rng).factors for _ in range(4000)])
    drawn = rng.integers(100, 126, size=(20000, 2)) / 100
    kept = np.sort(drawn, axis=1)  # of a pair and its mirror image one is monotone
    assert_allclose(ours.mean(axis=0), kept.mean(axis=0), atol=0.004)
    assert_allclose(ours.std(axis=0), kept.std(axis=0), atol=0.004)


def test_mutation_reaches_every_n_hat_and_every_critical_pair() -> None:
    space, rng = SPACES["searched pair"], np.random.default_rng(0)
    parent = seeds(space, CTX)["linear"]
    children = [operators.mutate(parent, space, 0.3, rng) for _ in range(1500)]
    assert {child.unscaled_prefix for child in children} == set(N_HATS)
    assert {child.critical_pair for child in children} == set(space.critical_pairs)
    kept = np.mean([child.unscaled_prefix == parent.unscaled_prefix for child in children])
    assert kept == pytest.approx(0.7 + 0.3 / len(N_HATS), abs=0.04)


def test_crossover_takes_every_gene_from_a_parent() -> None:
    space, rng = SPACES["longrope"], np.random.default_rng(0)
    first, second = Genome(seeds(space, CTX)["ntk"].factors, 4), Genome(seeds(space, CTX)["yarn"].factors, 64)
    mixed = 0
    for _ in range(300):
        child = operators.cross(first, second, space, rng)
        pairs = list(zip(child.factors, first.factors, second.factors, strict=True))
        assert all(ours in theirs for ours, *theirs in pairs)
        switches = np.diff([ours == a for ours, a, b in pairs if a != b]).astype(bool).sum()
        assert switches <= 1
        assert child.unscaled_prefix in (4, 64)
        mixed += child.factors not in (first.factors, second.factors)
        check(child, space, {*first.factors, *second.factors})
    assert mixed > 200
