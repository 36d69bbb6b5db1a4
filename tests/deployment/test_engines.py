"""What vLLM, SGLang and llama.cpp are given, computed as they compute it, against the method itself."""

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.deployment import llama_cpp
from harness.deployment.engines import ENGINES
from harness.deployment.express import attention_scaling, express
from harness.deployment.target import Target
from harness.methods import METHODS, RopeGeometry, build
from tests.deployment.cases import FREQUENCY, method
from tests.reference import engines

GEOMETRY = RopeGeometry(rotary_dim=64, rope_theta=10_000.0, original_max_position_embeddings=512)
CTX = 3 * 512
HEAD = {"rope_type": "default", "rope_theta": 10_000.0}
TARGET = Target("MODEL", "llama", GEOMETRY, CTX, {None: HEAD})
SERVED = {
    "vllm": ("--hf-overrides", "--max-model-len", engines.vllm, engines.vllm_longest),
    "sglang": ("--json-model-override-args", "--context-length", engines.sglang, engines.sglang_longest),
}


def expressed(case):
    chosen = method(case, GEOMETRY, CTX)
    return chosen(GEOMETRY, CTX), express(chosen, GEOMETRY, CTX)


def option(line, flag):
    words = shlex.split(line)
    return words[words.index(flag) + 1]


@pytest.mark.parametrize("case", FREQUENCY)
@pytest.mark.parametrize("engine", SERVED)
def test_the_flags_of_a_server_give_the_frequencies_of_the_method(engine, case):
    overrides, length, compute, longest = SERVED[engine]
    wanted, expression = expressed(case)
    spelling = ENGINES[engine](expression, TARGET)
    assert spelling.match == ("at this length" if expression.depends_on_length else "exact")
    (line,) = spelling.lines
    config, ctx = json.loads(option(line, overrides)), int(option(line, length))
    inv_freq, scaling = compute(config["rope_parameters"], 64, ctx)
    np.testing.assert_allclose(inv_freq, wanted.inv_freq, rtol=1e-12, atol=1e-18)
    assert scaling == pytest.approx(attention_scaling(wanted), rel=1e-12)
    reach = longest(config["rope_parameters"], config["max_position_embeddings"])
    assert ctx == CTX
    assert reach >= CTX - 1e-6
    if config["rope_parameters"]["rope_type"] == "linear":
        assert reach < CTX + config["rope_parameters"]["factor"]  # not a length that is extended twice


@pytest.mark.parametrize("case", FREQUENCY)
@pytest.mark.parametrize("by", ["flags", "metadata"])
def test_llama_cpp_gives_the_frequencies_of_the_method(by, case):
    wanted, expression = expressed(case)
    spelling = ENGINES["llama_cpp"](expression, TARGET)
    assert spelling.match == ("at this length" if expression.depends_on_length else "exact")
    flags, keys, factors = (), {"rope.freq_base": GEOMETRY.rope_theta, "context_length": 512}, None
    if by == "flags":
        flags = llama_cpp.flags_of(expression.settings, TARGET, "llama")
        if flags is None:
            assert not any(line.startswith("llama-server") for line in spelling.lines)
            return
        assert spelling.lines[0] == shlex.join(["llama-server", "-m", "MODEL.gguf", *flags])
    else:
        metadata = llama_cpp.metadata_of(expression, TARGET, "llama")
        keys, factors = {name.partition(".")[2]: value for name, value in metadata.keys.items()}, metadata.factors
        assert keys["context_length"] == CTX
    inv_freq, scaling = engines.llama_cpp(keys, factors, 64, flags)
    np.testing.assert_allclose(inv_freq, wanted.inv_freq, rtol=1e-7, atol=1e-18)
    assert scaling == pytest.approx(attention_scaling(wanted), rel=1e-7)


def test_an_architecture_without_the_tensor_is_named():
    target = replace(TARGET, model_type="qwen3")
    spelling = ENGINES["llama_cpp"](expressed("llama3")[1], target)
    assert (spelling.match, spelling.lines) == ("no", ())
    assert "qwen3 loads no tensor rope_freqs.weight" in spelling.notes[0]
    assert ENGINES["llama_cpp"](expressed("yarn")[1], target).match == "exact"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.kind in ("attention", "encoding")])
def test_what_no_engine_has_is_named_with_its_nearest(engine, name):
    made = build(name, {}, GEOMETRY, CTX)
    spelling = ENGINES[engine](express(made, GEOMETRY, CTX), TARGET)
    assert spelling.match == "nearest"
    (note,) = [note for note in spelling.notes if note.startswith("not expressible: ")]
    assert f"{name} ({made.changes})" in note
    assert note.partition("nearest: ")[2].partition(",")[0].rstrip(".") in ("yarn", "none")


@pytest.mark.parametrize("engine", ENGINES)
def test_modifiers_that_no_engine_has_are_named(engine):
    yarn = build("yarn", {"factor": 3.0}, GEOMETRY, CTX)
    spelling = ENGINES[engine](express(yarn, GEOMETRY, CTX, scaled_queries=True), TARGET)
    assert spelling.match == "nearest"
    assert any("scaling of queries by position" in note for note in spelling.notes)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_prefix_that_no_engine_has_is_named(engine):
    longrope = build("longrope", {"factor": 3.0, "long_factor": [2.0] * 32, "unscaled_prefix": 4}, GEOMETRY, CTX)
    spelling = ENGINES[engine](express(longrope, GEOMETRY, CTX), TARGET)
    assert spelling.match == "nearest"
    assert any("unscaled first 4 tokens" in note and "unscaled_prefix 0" in note for note in spelling.notes)


@pytest.mark.parametrize("all_rotate", [True, False])
def test_a_scale_of_all_logits_is_one_of_cos_and_sin_where_all_channels_rotate(all_rotate):
    yarn = build("yarn", {"factor": 3.0, "temperature_on": "logits"}, GEOMETRY, CTX)
    expression = express(yarn, GEOMETRY, CTX, all_rotate=all_rotate)
    assert bool(expression.lost) is not all_rotate
    assert expression.settings == express(build("yarn", {"factor": 3.0}, GEOMETRY, CTX), GEOMETRY, CTX).settings


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama_cpp"])
def test_fixed_scaling_says_what_it_means_for_short_prompts(engine):
    spelling = ENGINES[engine](expressed("dynamic_ntk")[1], TARGET)
    assert any("fixed at 1536 tokens" in note and "512 trained tokens" in note for note in spelling.notes)


# docs/deploy.md ------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
BEGIN, END = (
    "<!-- table: HARNESS_WRITE_DOCS=1 pytest tests/deployment/test_engines.py writes it -->",
    "<!-- end of table -->",
)
OPTIONS = [case for case in FREQUENCY if "," in case]  # what the table shows beside a line a method


def line_of(name, chosen):
    """A line of the table: how near each engine comes, and by which settings."""
    if chosen.kind == "native":
        return f"| {name} | the checkpoint's own settings, which every engine reads | | | |"
    expression = express(chosen, GEOMETRY, CTX)
    cells = []
    for engine, spell in ENGINES.items():
        spelling = spell(expression, TARGET)
        by_length = engine == "transformers" and expression.by_length
        kind = (expression.by_length if by_length else expression.settings).rope_type
        if engine == "llama_cpp":
            kind = "flags" if spelling.lines[0].startswith("llama-server") else "tensor"
        near = f" {expression.nearest.name}:" if expression.nearest else ""
        cells.append(f"{spelling.match},{near} {kind}" if spelling.match != "exact" else kind)
    return f"| {name} | {' | '.join(cells)} |"


def lines():
    cases = {case: method(case, GEOMETRY, CTX) for case in FREQUENCY}
    plain = {name: cases[name] if name in cases else build(name, {}, GEOMETRY, CTX) for name in METHODS}
    options = {case: cases[case] for case in OPTIONS}
    ordered = sorted({**plain, **options}.items(), key=lambda item: (item[1].kind == "encoding", item[0]))
    return [line_of(name, chosen) for name, chosen in ordered]


def test_the_page_has_the_table():
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    if os.environ.get("HARNESS_WRITE_DOCS"):
        head = "| method | transformers | vLLM | SGLang | llama.cpp |\n| --- | --- | --- | --- | --- |"
        PAGE.write_text("\n".join([f"{before}{BEGIN}", head, *lines(), f"{END}{rest.split(END)[1]}"]))
    table = PAGE.read_text().split(BEGIN)[1].split(END)[0]
    assert [line for line in table.splitlines() if line][2:] == lines()
