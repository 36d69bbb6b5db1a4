"""LongRoPE2's objective: answers to needles that no evaluation asks for; killed and resumed as any search."""

import math
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from harness import methods
from harness.data import documents, needles
from harness.data.protocols import Targets
from harness.data.sources import DataSpec
from harness.engine.engine import Engine
from harness.engine.spec import EngineSpec
from harness.longrope_search.config import NEEDLES
from harness.methods.frequency.longrope import LongRope
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from tests.byte_tokenizer import VOCABULARY, byte_tokenizer
from tests.evaluations import scores
from tests.longrope_search.test_run import SearchPlace, _individuals
from tests.tiny import tiny_llama

CTX = 256


class BytePlace(SearchPlace):
    """A tiny model that reads bytes, which can tell numbers apart."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        tiny_llama(vocab_size=VOCABULARY).save_pretrained(self.model)
        byte_tokenizer().save_pretrained(self.model)

    def command(self, *overrides: str, module: str = "harness.search") -> list[str]:
        needle = ["search.variant=longrope2", "search.objective=needle", f"ctx={CTX}"]
        return super().command(*needle, *overrides, module=module)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> BytePlace:
    place = BytePlace(tmp_path_factory.mktemp("needles"))
    place.search()
    return place


def test_individuals_are_judged_by_the_answers_of_right_documents(
    searched: BytePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", searched.environment["HARNESS_CACHE"])
    (stage,) = searched.factors()["stages"]  # type: ignore[misc]
    assert stage["objective"] == "needle"
    data = DataSpec(name="text", path=str(searched.texts), skip=2, num_documents=3, needles=NEEDLES)
    found = documents.load(data, byte_tokenizer(), "t")
    made = needles.planted(found, data, byte_tokenizer(), CTX, 0, "search").documents
    right = [document for document in made if document.needle is not None and document.needle.right]
    assert len(right) == len(made) / 2 == 20
    model = tiny_llama(vocab_size=VOCABULARY)
    given = methods.build("yarn", {}, geometry(model.config), CTX)
    won = LongRope(
        long_factor=stage["long_factor"], factor=CTX / 32, temperature=stage["temperature"],
        unscaled_prefix=stage["unscaled_prefix"],
    )  # fmt: skip
    for method, perplexity in ((given, stage["methods"]["yarn"]), (won, stage["perplexity"])):
        with applied(model, method, CTX, 32):
            scored = scores(Engine(model, EngineSpec()).token_nll, right, CTX, Targets(bos="none"))
        losses = [float(x) for one in scored for nll in one.nll for x in nll]
        assert len(losses) == 20 * 6  # a space and five digits
        assert perplexity == pytest.approx(math.exp(math.fsum(losses) / len(losses)), rel=1e-5)


def test_winners_are_evaluated_by_the_answers_that_evaluations_ask_for(
    searched: BytePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", searched.environment["HARNESS_CACHE"])
    (stage,) = searched.factors()["stages"]  # type: ignore[misc]
    data = DataSpec(name="text", path=str(searched.texts), num_documents=2, needles=NEEDLES)
    found = documents.load(data, byte_tokenizer(), "t")
    made = needles.planted(found, data, byte_tokenizer(), CTX, 0, "evaluation").documents
    right = [document for document in made if document.needle is not None and document.needle.right]
    model = tiny_llama(vocab_size=VOCABULARY)
    with applied(model, methods.build("yarn", {}, geometry(model.config), CTX), CTX, 32):
        scored = scores(Engine(model, EngineSpec()).token_nll, right, CTX, Targets(bos="none"))
    losses = [float(x) for one in scored for nll in one.nll for x in nll]
    expected = math.exp(math.fsum(losses) / len(losses))
    assert stage["evaluated"]["method=yarn"]["perplexity"] == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(stage["methods"]["yarn"], rel=1e-4)  # which the search's own needles give


def _written(place: SearchPlace) -> dict[str, int]:
    """When each file of evaluations was written."""
    folder = place.folder / "search" / f"ctx{CTX}" / "evaluations"
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.json")}


def test_a_killed_search_finds_the_same(searched: BytePlace, tmp_path: Path) -> None:
    place = BytePlace(tmp_path)
    place.texts = searched.texts
    place.model = searched.model
    state = tmp_path / "search" / f"ctx{CTX}" / "state.json"
    process = place.start()
    while process.is_alive() and _individuals(state) < 8:
        time.sleep(0.001)
    assert process.is_alive()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert _individuals(state) < 26
    paid = _written(place)
    assert paid
    place.search()
    assert {file: at for file, at in _written(place).items() if file in paid} == paid  # none is evaluated twice
    assert place.factors()["stages"] == searched.factors()["stages"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["protocol=sliding"], "protocol must be single_pass or targets, got sliding"),
        (["search.objective=neddle"], "neddle"),
        (["search.objective=perplexity", "+search_data.needles.repeats=2"], "search.objective=needle judges by"),
        (["+search_data.needles.depths=[2]"], "between 0 (beginning) and 1 (end), got 2"),
        (["ctx=64"], "ctx must be at least"),
        (["search_data.skip=1"], "have text in common"),
    ],
)
def test_mistakes_take_one_line(
    overrides: list[str],
    words: str,
    searched: BytePlace,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from harness import search

    monkeypatch.setattr(sys, "argv", searched.command(*overrides)[2:])
    monkeypatch.setenv("HARNESS_CACHE", searched.environment["HARNESS_CACHE"])
    with pytest.raises(SystemExit) as left:
        search.main()
    assert left.value.code == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
