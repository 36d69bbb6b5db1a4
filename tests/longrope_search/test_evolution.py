"""The evolution: a known optimum, the seed, going on from any generation."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from harness.longrope_search import progress, result
from harness.longrope_search.evolution import Evolution, best
from tests.longrope_search.spaces import SMALL, SPACES, history


@pytest.mark.parametrize("name", ["longrope", "longrope2"])
def test_a_known_optimum_is_found(name: str) -> None:
    space = SPACES[name]
    individuals = history(space, Evolution())
    assert len(individuals) == 64 + 40 * 32
    seeded = min(one.nll for one in individuals if one.origin not in ("mutation", "crossover"))
    found = best(individuals, 1)[0]
    assert found.nll < 0.1 * seeded
    assert found.genome.unscaled_prefix == 256
    so_far = result.table(individuals)["best_perplexity"]
    assert (so_far.diff().dropna() <= 0).all()
    assert so_far.iloc[-1] == pytest.approx(math.exp(found.nll), rel=1e-12)


def test_the_seed_decides_and_nothing_else() -> None:
    space = SPACES["longrope"]
    assert history(space, SMALL, seed=3) == history(space, SMALL, seed=3)
    assert history(space, SMALL, seed=3) != history(space, SMALL, seed=4)
    longer = history(space, replace(SMALL, iterations=20), seed=3)
    assert longer[: 12 + 12 * 12] == history(space, SMALL, seed=3)


@pytest.mark.parametrize("generation", [0, 1, 7, 12])
def test_a_search_goes_on_from_any_generation(generation: int, tmp_path: Path) -> None:
    space = SPACES["searched pair"]
    whole = history(space, SMALL)
    progress.save(tmp_path, [one for one in whole if one.generation <= generation])
    read = progress.load(tmp_path, SMALL.iterations)
    assert read == [one for one in whole if one.generation <= generation]
    assert history(space, SMALL, before=read) == whole


def test_parents_are_the_best_of_all_generations() -> None:
    space = SPACES["no n-hat"]
    evolution = Evolution(population=5, mutations=0, crossovers=5, iterations=1, parents=2)
    individuals = history(space, evolution)
    first, second = best([one for one in individuals if one.generation == 0], 2)
    for child in individuals[5:]:
        assert set(child.genome.factors) <= {*first.genome.factors, *second.genome.factors}


def test_a_damaged_state_is_logged_and_bred_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state.json").write_text("[[[1.0, 2.0], 0")
    assert progress.load(tmp_path, 5) == []
    assert "damaged" in caplog.text
