"""Files of factors, as a search writes and a method reads them."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from numpy.testing import assert_allclose

from harness import methods
from harness.errors import UserError
from harness.longrope_search import evaluated, result
from harness.longrope_search.space import Genome, Space, seeds
from harness.methods import RopeGeometry
from harness.methods.frequency import rescale_factors
from tests.longrope_search.spaces import LLAMA2, check


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
    geometry = RopeGeometry(**{key: content[key] for key in RopeGeometry.__dataclass_fields__ if key in content})
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


def test_the_named_sets_are_those_that_the_page_describes() -> None:
    assert FOUND == ["reference-2048-8192", "smollm2-16384"]


def test_the_summary_sets_what_was_found_beside_what_the_search_began_with() -> None:
    stage = {"target_ctx": 64, "perplexity": 10.5, "seeds": {"yarn": 12.25}, "methods": {"yarn": 11.125}}
    text = result.summary({"stages": [stage, {**stage, "target_ctx": 128, "perplexity": 20}]})
    rows = {(line := row.rsplit(None, 2))[0]: line[1:] for row in text.splitlines()[1:]}
    assert rows == {"found": ["10.5", "20"], "yarn factors": ["12.25", "12.25"], "method=yarn": ["11.12", "11.12"]}


def test_the_table_of_evaluation_documents_has_a_ratio_beside_each_perplexity() -> None:
    found = {"perplexity": 30.25, "found_over_it": 1.0, "low": 1.0, "high": 1.0}
    yarn = {"perplexity": 33.5, "found_over_it": 0.903, "low": 0.85, "high": 0.95}
    few = {**yarn, "low": None, "high": None}
    stages = [
        {"target_ctx": 64, "evaluated": {"found": found, "method=yarn": yarn}},
        {"target_ctx": 128},  # too long for the documents
        {"target_ctx": 256, "evaluated": {"found": found, "method=yarn": few}},
    ]
    head, first, second = (evaluated.table({"stages": stages}) or "").splitlines()
    assert "128" not in head
    assert first.split() == ["found", "30.25", "30.25"]
    assert second.split("  ")[-1].strip() == "0.9030"
    assert "0.9030 [0.8500, 0.9500]" in second
    assert evaluated.table({"stages": [{"target_ctx": 128}]}) is None


def test_the_interval_of_found_over_another_is_paired() -> None:
    """Documents of very different losses whose difference is nearly one: narrow, as statistics.paired has it."""
    losses = [100.0, 200.0, 300.0, 400.0, 500.0, 600.0]
    found = [(nats, 100.0) for nats in losses]
    other = [(nats + 10 + 0.1 * i, 100.0) for i, nats in enumerate(losses)]
    beside = evaluated._beside(found, other)
    assert beside.found_over_it == pytest.approx(math.exp(-(60 + 1.5) / 600), rel=1e-12)
    assert beside.perplexity == pytest.approx(math.exp((2100 + 60 + 1.5) / 600), rel=1e-12)
    assert beside.low is not None
    assert beside.high is not None
    assert beside.low < beside.found_over_it < beside.high < beside.low * 1.01
