"""The search for LongRoPE's factors: constraints, operators, a known optimum, kills, sharing, files."""

import itertools
import json
import math
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from omegaconf import OmegaConf

from harness import methods
from harness.config.checks import plain
from harness.data import documents, overlap
from harness.data.documents import Document, DocumentSet
from harness.data.sources import DataSpec
from harness.errors import UserError
from harness.longrope_search import config, operators, progress, result
from harness.longrope_search.evaluations import Evaluations
from harness.longrope_search.evolution import Evolution, Individual, best, evolve
from harness.longrope_search.space import N_HATS, Genome, Space, critical_pair, on_grid, seeds
from harness.methods import RopeGeometry
from harness.methods.frequency import rescale_factors
from harness.storage.leases import Leases
from tests.sweeps import Forked, Place

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


# Space and operators.


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


# Evolution.


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


# Sharing.


def _count(folder: Path, keys: list[str], log: Path) -> None:
    def compute(batch: list[str]) -> list[dict[str, float]]:
        with log.open("a") as stream:
            stream.write("".join(f"{key} {len(batch)} {os.getpid()}\n" for key in batch))
        time.sleep(0.01)
        return [{"nll": len(key) + 0.1} for key in batch]

    with Leases() as leases:
        batches = [{key: key for key in keys[begin : begin + 7]} for begin in range(0, len(keys), 7)]
        found = Evaluations(folder, leases).get(batches, compute)
        assert set(found) == set(keys)
        assert all(found[key] == {"nll": len(key) + 0.1} for key in keys)


def test_processes_share_evaluations_and_none_is_paid_twice(tmp_path: Path) -> None:
    keys, log = [f"genome{i}" for i in range(60)], tmp_path / "log"
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_count, args=(tmp_path / "evaluations", keys, log)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    done = [line.split() for line in log.read_text().splitlines()]
    assert sorted(key for key, _, _ in done) == sorted(keys)
    assert [int(size) for _, size, _ in done].count(7) == 56  # of 60, the last batch holds four
    assert len({pid for _, _, pid in done}) > 1
    assert not list((tmp_path / "evaluations").glob("*.lease"))


def test_a_damaged_evaluation_is_computed_again(tmp_path: Path) -> None:
    def get() -> dict[str, dict[str, float]]:
        with Leases() as leases:
            return Evaluations(tmp_path, leases).get([{"a": 2.5}], lambda items: [{"nll": item} for item in items])

    assert get() == {"a": {"nll": 2.5}}
    (file,) = tmp_path.glob("*.json")
    whole = file.read_text()
    file.write_text(whole[:9])
    assert get() == {"a": {"nll": 2.5}}
    assert file.read_text() == whole


def test_a_batch_is_known_by_all_its_members(tmp_path: Path) -> None:
    computed: list[list[float]] = []

    def compute(items: list[float]) -> list[dict[str, float]]:
        computed.append(items)
        return [{"nll": item} for item in items]

    with Leases() as leases:
        evaluations = Evaluations(tmp_path, leases)
        for batch in ({"a": 1.0, "b": 2.0}, {"a": 1.0}, {"a": 1.0, "b": 2.0}):
            assert evaluations.get([batch], compute) == {key: {"nll": value} for key, value in batch.items()}
    assert computed == [[1.0, 2.0], [1.0]]


# Documents.


def _set(*ids: np.ndarray) -> DocumentSet:
    made = [Document(f"d{i}", np.asarray(one), np.arange(len(one) + 1)) for i, one in enumerate(ids)]
    return DocumentSet("text", made, "f", "first documents")


def test_overlapping_documents_are_found_wherever_the_common_text_begins() -> None:
    rng = np.random.default_rng(0)
    long, other = rng.integers(0, 50, 5000), rng.integers(0, 50, 4000)
    overlap.check_disjoint(_set(long), _set(other))
    for begin, end in ((0, 1000), (37, 900), (3210, 5000)):
        with pytest.raises(UserError, match="text in common"):
            overlap.check_disjoint(_set(other, long[begin:end]), _set(long))
        with pytest.raises(UserError, match=r"'d1'.*'d0'"):
            overlap.check_disjoint(_set(other, long), _set(np.concatenate([other[:300] + 50, long[begin:end]])))
    quoting = np.concatenate([other, long[100:230]])
    overlap.check_disjoint(_set(quoting), _set(long))
    with pytest.raises(UserError, match="text in common"):
        overlap.check_disjoint(_set(long[:40]), _set(long[:40]))


def test_fingerprints_tell_order_and_place() -> None:
    ids = np.arange(300)
    prints = overlap.fingerprints(ids)
    assert len(prints) == 300 - overlap.RUN + 1
    assert len(set(prints.tolist())) == len(prints)
    assert overlap.fingerprints(ids[5:])[0] == prints[5]
    swapped = ids.copy()
    swapped[[10, 11]] = swapped[[11, 10]]
    assert not np.isin(overlap.fingerprints(swapped)[:11], prints).any()


def test_skipped_documents_are_left_to_others(tmp_path: Path, own_cache: None) -> None:
    place = Place(tmp_path, documents=6)
    prepared = place.prepared("method=none ctx=64")[0]

    def named(**selection: int | str) -> tuple[list[str], str]:
        spec = DataSpec(name="text", path=str(place.texts), **selection)
        made = documents.load(spec, prepared.header.tokenizer, "t", seed=1)
        return [d.name for d in made.documents], made.fingerprint

    everything, _ = named(selection="random")
    first, of_first = named(selection="random", num_documents=4)
    rest, of_rest = named(selection="random", skip=4)
    assert first + rest == everything
    assert len({of_first, of_rest, named(selection="random", skip=3)[1]}) == 3
    with pytest.raises(UserError, match="3 documents after 4 others.*2 found"):
        named(skip=4, num_documents=3)


# Factor files.


def _factors_file(folder: Path, **about: object) -> Path:
    stages = [
        {"target_ctx": 2048, "long_factor": [2.0] * 64, "unscaled_prefix": 4, "temperature": "none"},
        {"target_ctx": 8192, "long_factor": [3.0] * 64, "unscaled_prefix": 0, "temperature": 1.25},
    ]
    result.write_json(folder / "factors.json", {"stages": stages, **about})
    return folder / "factors.json"


def test_longrope_switches_stages_by_length(tmp_path: Path) -> None:
    trained = replace(LLAMA2, original_max_position_embeddings=512)
    params = {"factors": str(_factors_file(tmp_path, short_factor=[1.0] * 64))}
    for ctx, factor, prefix, scaling in (
        (300, 1.0, 4, 1.0), (512, 1.0, 4, 1.0), (513, 2.0, 4, 1.0), (2048, 2.0, 4, 1.0),
        (2049, 3.0, 0, 1.25), (8192, 3.0, 0, 1.25), (16384, 3.0, 0, 1.25),
    ):  # fmt: skip
        made = methods.build("longrope", params, trained, ctx)(trained, ctx)
        assert_allclose(made.inv_freq, trained.inv_freq / factor, rtol=1e-12)
        assert (made.unscaled_prefix, made.attention_scaling) == (prefix, scaling)
    own = methods.build("longrope", params | {"temperature": "su", "unscaled_prefix": 8}, trained, 2048)
    assert own(trained, 2048).unscaled_prefix == 8
    assert own(trained, 2048).attention_scaling == pytest.approx(math.sqrt(1 + math.log(4) / math.log(512)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"stages": []}, "target_ctx"),
        ({"stages": [{"long_factor": [1.0] * 64}]}, "target_ctx"),
        ({"stages": [{"target_ctx": 4096, "long_factor": [1.0] * 64, "unscaled_prefix": 0.5}]}, "unscaled_prefix"),
        ({"stages": [{"target_ctx": 4096, "long_factor": [1.0] * 64, "temperature": "hot"}]}, "temperature"),
    ],
)
def test_malformed_stages_are_mistakes(content: dict[str, object], words: str, tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=words):
        methods.build("longrope", {"factors": str(tmp_path / "f.json")}, LLAMA2, 32768)


FOUND = [name for name in rescale_factors.named_sets() if name not in rescale_factors.published_sets()]


@pytest.mark.parametrize("name", FOUND)
def test_a_named_set_reads_as_its_file_and_lies_in_its_search_space(name: str) -> None:
    content = json.loads((rescale_factors.FOUND / f"{name}.json").read_text())
    geometry = RopeGeometry(**{key: content[key] for key in RopeGeometry.__dataclass_fields__})
    assert not set(content["search_documents"]["documents"]) & set(content["evaluation_documents"]["documents"])
    for stage in content["stages"]:
        ctx = stage["target_ctx"]
        read = rescale_factors.read(name, ctx)
        assert (read.long_factor, read.unscaled_prefix) == (stage["long_factor"], stage["unscaled_prefix"])
        assert read.short_factor == [1.0] * (geometry.rotary_dim // 2)
        space = Space(geometry=geometry, factor=ctx / geometry.original_max_position_embeddings)
        genome = Genome(tuple(stage["long_factor"]), stage["unscaled_prefix"])
        check(genome, space, {value for seed in seeds(space, ctx).values() for value in seed.factors})
        made = methods.build("longrope", {"factors": name}, geometry, ctx)(geometry, ctx)
        assert_allclose(made.inv_freq * stage["long_factor"], geometry.inv_freq, rtol=1e-12)
        scaling = math.sqrt(1 + math.log(space.factor) / math.log(geometry.original_max_position_embeddings))
        assert made.attention_scaling == pytest.approx(scaling, rel=1e-12)


def test_the_named_sets_are_those_that_the_page_tells_of() -> None:
    assert FOUND == ["reference-2048-8192", "smollm2-16384"]


# The command.


class SearchPlace(Place):
    """A tiny model and eight documents: two to evaluate on, three to search on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, documents=8)

    def command(self, *overrides: str, module: str = "harness.search") -> list[str]:
        mine = [o for o in self.overrides if not o.startswith("results_dir")]
        data = [f"data@search_data={self.data}", f"search_data.path={self.texts}", "data.num_documents=2"]
        data += ["search_data.skip=2", "search_data.num_documents=3", f"output_dir={self.folder / 'search'}"]
        small = ["search.population=8", "search.mutations=3", "search.crossovers=3", "search.parents=4"]
        run = ["search.iterations=3", "search.batch=4"]
        return [*super().command(module=module)[:3], *mine, *data, *small, *run, *overrides]

    def start(self, *overrides: str, draws: bool = False) -> multiprocessing.Process:
        """A search in a process of its own, forked from one that has the heavy imports behind it."""
        arguments = (self.command(*overrides)[2:], self.environment, draws)
        process = Forked.server.Process(target=_search, args=arguments)
        process.start()
        return process

    def search(self, *overrides: str, draws: bool = False) -> None:
        process = self.start(*overrides, draws=draws)
        process.join()
        assert process.exitcode == 0

    def factors(self) -> dict[str, object]:
        return json.loads((self.folder / "search" / "factors.json").read_text())


def _search(arguments: list[str], environment: dict[str, str], draws: bool) -> None:
    os.environ |= environment
    torch.set_num_threads(1)
    sys.argv = arguments
    from harness import search
    from harness.longrope_search import run

    if not draws:  # drawing takes longer than searching here
        run.save = lambda figure, path: []
    search.main()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SearchPlace:
    place = SearchPlace(tmp_path_factory.mktemp("search"))
    place.search("ctx=[64,128]", draws=True)
    return place


def test_a_search_writes_factors_individuals_and_figures(searched: SearchPlace) -> None:
    content = searched.factors()
    assert [stage["target_ctx"] for stage in content["stages"]] == [64, 128]
    assert content["short_factor"] == [1.0] * 8
    assert content["search_documents"]["documents"] == [f"texts-{i}" for i in (2, 3, 4)]
    for stage in content["stages"]:
        rows = pd.read_parquet(searched.folder / "search" / f"ctx{stage['target_ctx']}" / "individuals.parquet")
        assert len(rows) == stage["evaluations"] == 8 + 3 * 6
        assert rows["generation"].max() == 3
        winner = rows.loc[rows["nll"].idxmin()]
        assert list(winner["factors"]) == stage["long_factor"]
        assert winner["unscaled_prefix"] == stage["unscaled_prefix"]
        assert stage["perplexity"] == pytest.approx(math.exp(rows["nll"].min()), rel=1e-12)
        assert stage["history"]["evaluation"] == [8, 14, 20, 26]
        stem = searched.folder / "plots" / f"search_tiny_{stage['target_ctx']}"
        for name in ("progress.svg", "progress.png", "factors.svg", "factors.png"):
            assert Path(f"{stem}_{name}").stat().st_size > 1000


def test_the_harness_finds_the_perplexities_that_the_search_found(searched: SearchPlace) -> None:
    """Search set, ctx 64, single pass: the cell's own path through the harness, seeds, winner and methods."""
    stage = searched.factors()["stages"][0]
    file = searched.folder / "search" / "factors.json"
    of = {"longrope": stage["perplexity"], **stage["methods"]}
    wanted = ["method=none", "method=linear", "method=ntk", "method=yarn", f"method=longrope method.factors={file}"]
    common = ("ctx=64", "data.skip=2", "data.num_documents=3")
    from harness import load_results, summarize
    from harness.runs import runner

    runner.run(searched.prepared(*wanted, common=common))
    found = summarize(load_results(searched.results)).set_index("method")["perplexity"]
    for name, perplexity in of.items():
        assert found[name] == pytest.approx(perplexity, rel=1e-6)


def test_a_finished_search_is_not_paid_again_and_gives_the_same_file(searched: SearchPlace) -> None:
    def evaluations() -> dict[str, int]:
        folder = searched.folder / "search"
        return {str(f): f.stat().st_mtime_ns for f in folder.rglob("evaluations/*.json")}

    before, content = evaluations(), (searched.folder / "search" / "factors.json").read_bytes()
    searched.search("ctx=[64,128]")
    assert evaluations() == before
    assert (searched.folder / "search" / "factors.json").read_bytes() == content


def _killed_and_shared(searched: SearchPlace, folder: Path, generations: tuple[int, ...]) -> None:
    """Kill a search after each of these generations, let two finish it, and compare with one that ran through."""
    place = SearchPlace(folder)
    place.model, place.texts = searched.model, searched.texts
    state = folder / "search" / "ctx64" / "state.json"
    killed = 0
    for generation in generations:
        process = place.start("ctx=64")
        while process.is_alive() and _individuals(state) < 8 + 6 * generation:
            time.sleep(0.001)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.join()
    assert killed
    assert _individuals(state) < 26
    rest = [place.start("ctx=64") for _ in range(2)]
    for process in rest:
        process.join()
    assert [process.exitcode for process in rest] == [0, 0]
    assert state.read_bytes() == (searched.folder / "search" / "ctx64" / "state.json").read_bytes()
    assert place.factors()["stages"] == searched.factors()["stages"][:1]


def test_a_killed_and_shared_search_finds_the_same(searched: SearchPlace, tmp_path: Path) -> None:
    _killed_and_shared(searched, tmp_path, (0,))


@pytest.mark.slow
def test_a_search_killed_again_and_again_finds_the_same(searched: SearchPlace, tmp_path: Path) -> None:
    _killed_and_shared(searched, tmp_path, (0, 0, 1))


def _individuals(state: Path) -> int:
    return len(json.loads(state.read_text())) if state.exists() else 0


MISTAKES = {
    "overlap": (["search_data.skip=1"], ["text in common", "search_data.skip", "'texts-1'"]),
    "trained length": (["ctx=32"], ["ctx must be at least 33", "search.finetuned=true"]),
    "mistyped": (["search.populaton=3"], ["search.populaton", "Did you mean 'search.population'"]),
    "probability": (["search.mutation_probability=0"], ["mutation_probability", "(0, 1]"]),
    "temperature": (["search.temperature=warm"], ["temperature", "'warm'"]),
    "batch": (["search.batch=0"], ["search.batch", "at least 1"]),
    "pair": (["search.critical_pair=3"], ["longrope2", "critical_pair"]),
    "no such pair": (["search.variant=longrope2", "search.critical_pair=8"], ["below 8", "got 8"]),
    "short documents": (["ctx=256"], ["256", "160 tokens"]),
    "lengths": (["ctx=[64,x]"], ["ctx must be an integer", "x"]),
    "another search": (["ctx=64", "seed=1"], ["holds another search", "seed"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_take_one_line(
    name: str, searched: SearchPlace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, words = MISTAKES[name]
    from harness import search

    command = searched.command(*([] if any("ctx" in o for o in overrides) else ["ctx=64"]), *overrides)
    monkeypatch.setattr("sys.argv", command[2:])
    monkeypatch.setenv("HARNESS_CACHE", searched.environment["HARNESS_CACHE"])
    with pytest.raises(SystemExit) as left:
        search.main()
    assert left.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in line for word in words), line


def test_the_preset_composes_and_is_the_papers() -> None:
    from hydra import compose, initialize_config_module

    with initialize_config_module("harness.conf", version_base="1.3"):
        parsed = config.parse(plain(compose("search", ["ctx=4096"])))
        OmegaConf.to_container(compose("search", ["search.variant=longrope2", "search.critical_pair=search"]))
    spec = parsed.search
    assert (spec.population, spec.mutations, spec.crossovers, spec.iterations, spec.parents) == (64, 16, 16, 40, 32)
    assert spec.mutation_probability == 0.3
    space = spec.space(LLAMA2, 32768)
    assert space.n_hats == (0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 64, 128, 256)
    assert space.limits(None).high.tolist() == [10.0] * 64
    assert parsed.search_data.skip == parsed.data.num_documents
