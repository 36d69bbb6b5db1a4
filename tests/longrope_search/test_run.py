"""The command: files, kills, sharing, mistakes, the preset."""

import json
import math
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from harness.config.checks import plain
from harness.longrope_search import config
from tests.longrope_search.spaces import LLAMA2
from tests.sweeps import Forked, Place


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


def test_the_harness_evaluates_what_was_found_as_the_search_does(searched: SearchPlace) -> None:
    """Evaluation documents, both lengths: perplexities and paired ratios of the cells of the harness itself."""
    file = searched.folder / "search" / "factors.json"
    wanted = ["method=linear", "method=ntk", "method=yarn", f"method=longrope method.factors={file}"]
    from harness import load_results, summarize
    from harness.runs import runner

    for stage in searched.factors()["stages"]:
        results = searched.folder / f"evaluated{stage['target_ctx']}"
        common = (f"ctx={stage['target_ctx']}", "data.num_documents=2", f"results_dir={results}")
        runner.run(searched.prepared(*wanted, common=common))
        measured = summarize(load_results(results)).set_index("method")["perplexity"]
        evaluated = stage["evaluated"]
        assert next(iter(evaluated)) == "found"
        assert set(evaluated) == {
            "found",
            *(f"{m} factors" for m in stage["seeds"]),
            *(f"method={m}" for m in stage["methods"]),
        }
        for name, method in {"found": "longrope", **{f"method={m}": m for m in stage["methods"]}}.items():
            assert evaluated[name]["perplexity"] == pytest.approx(measured[method], rel=1e-6)
            over = measured["longrope"] / measured[method]
            assert evaluated[name]["found_over_it"] == pytest.approx(over, rel=1e-6)
            assert evaluated[name]["low"] is None  # of two documents no interval


def test_documents_that_are_too_short_to_evaluate_on_stop_no_search(searched: SearchPlace, tmp_path: Path) -> None:
    """The table is of the lengths that they hold; a line before the search says which they do not."""
    place = SearchPlace(tmp_path)
    place.model, place.texts = searched.model, searched.texts
    place.search("ctx=[64,128]", "data.max_tokens=100", "search.iterations=0")
    short, long = place.factors()["stages"]
    assert "evaluated" in short
    assert "evaluated" not in long


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
