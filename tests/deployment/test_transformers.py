"""A checkpoint written for transformers, loaded anew and without a patch, against the model that we patch."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, logging
from transformers.utils.logging import disable_progress_bar

from harness.deployment.checkpoint import write
from harness.deployment.engines import ENGINES
from harness.deployment.express import express
from harness.deployment.target import Target
from harness.errors import UserError
from harness.methods import build
from harness.models.checkpoint.load import load_config
from harness.models.checkpoint.sliding_window import set_window
from harness.models.checkpoint.spec import ModelSpec
from harness.models.install import applied
from tests.deployment.cases import FREQUENCY, method
from tests.tiny import FAMILIES, TRAINED, logits, tiny_config, tiny_model, tokens, with_scaling

LENGTH = 3 * TRAINED
# plain, grouped, experts; half rotated; longrope alone; two bases; latent; complex; local layers; position by layer
USUAL = [
    "llama", "mistral", "qwen3", "gemma2", "phi", "phi3", "gemma3_text", "deepseek_v3", "llama4_text", "gpt_neox",
    "olmo3", "smollm3",
]  # fmt: skip
REST = [family for family in FAMILIES if family not in USUAL]
FIXED = {
    "dynamic_linear",
    "dynamic_yarn",
    "longrope, dynamic",
    "longrope, two numbers",
}  # transformers has no such switch by length
logging.set_verbosity_error()
disable_progress_bar()


@pytest.fixture(scope="module", params=[*USUAL, *(pytest.param(f, marks=pytest.mark.slow) for f in REST)])
def source(request, tmp_path_factory):
    """A tiny model in memory, and the same as a checkpoint."""
    torch.set_num_threads(1)
    model = tiny_model(tiny_config(request.param))
    folder = tmp_path_factory.mktemp("source")
    model.save_pretrained(folder)
    return model, ModelSpec(name=request.param, path=str(folder))


def loaded(folder, **more):
    read = AutoModelForCausalLM.from_pretrained
    return read(folder, attn_implementation="eager", dtype=torch.float32, **more).eval()


@pytest.mark.parametrize("case", FREQUENCY)
def test_the_exported_checkpoint_gives_the_logits_of_the_patched_model(source, case, tmp_path):
    model, spec = source
    target = Target.of(spec, LENGTH)
    chosen = method(case, target.geometry, LENGTH)
    expression = express(chosen, target.geometry, LENGTH)
    fixed = FIXED | ({"dynamic_ntk", "dynamic_ntk, factor 2"} if spec.name == "phi3" else set())
    match = ENGINES["transformers"](expression, target).match
    assert match == ("at this length" if case in fixed else "exact")
    write(spec, expression, target, tmp_path / "exported")
    with applied(model, chosen, LENGTH):
        ours = logits(model, tokens(LENGTH))
    theirs = logits(loaded(tmp_path / "exported"), tokens(LENGTH))
    # transformers keeps frequencies in float32, ours are float64: relative to the largest logit where those are large
    torch.testing.assert_close(theirs, ours, atol=1e-5 * max(1.0, float(ours.abs().max())), rtol=0)


def test_the_test_would_see_a_method_that_was_not_exported(source):
    model, _ = source
    with applied(model, build("linear", {"factor": 3.0}, Target.of(source[1], LENGTH).geometry, LENGTH), LENGTH):
        ours = logits(model, tokens(LENGTH))
    assert (ours - logits(model, tokens(LENGTH))).abs().max() > 1e-2


@pytest.mark.parametrize("length", [TRAINED // 2, TRAINED, TRAINED + 1, 2 * TRAINED])
@pytest.mark.parametrize("case", ["dynamic_ntk", "dynamic_ntk, factor 2", "longrope, switched"])
def test_what_follows_the_length_in_transformers_follows_it_after_export(case, length, tmp_path):
    model = tiny_model(tiny_config("llama"))
    model.save_pretrained(tmp_path / "source")
    spec = ModelSpec(name="tiny", path=str(tmp_path / "source"))
    target = Target.of(spec, LENGTH)
    chosen = method(case, target.geometry, LENGTH)
    write(spec, express(chosen, target.geometry, LENGTH), target, tmp_path / "exported")
    with applied(model, chosen, length):
        ours = logits(model, tokens(length))
    torch.testing.assert_close(logits(loaded(tmp_path / "exported"), tokens(length)), ours, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", ["none", "linear", "yarn, rotations"])
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_what_a_checkpoint_declared_itself_is_replaced(family, case, tmp_path):
    declared = {"rope_type": "yarn", "factor": 7.0, "original_max_position_embeddings": TRAINED, "beta_fast": 4.0}
    model = with_scaling(tiny_model(tiny_config(family)), **declared)
    model.save_pretrained(tmp_path / "source")
    spec = ModelSpec(name=family, path=str(tmp_path / "source"))
    target = Target.of(spec, LENGTH)
    chosen = method(case, target.geometry, LENGTH)
    write(spec, express(chosen, target.geometry, LENGTH), target, tmp_path / "exported")
    with applied(model, chosen, LENGTH):
        ours = logits(model, tokens(LENGTH))
    torch.testing.assert_close(logits(loaded(tmp_path / "exported"), tokens(LENGTH)), ours, atol=1e-5, rtol=0)


def test_an_attention_window_goes_with_the_method(tmp_path):
    tiny_model(tiny_config("mistral", sliding_window=8)).save_pretrained(tmp_path / "source")
    spec = ModelSpec(name="mistral", path=str(tmp_path / "source"), sliding_window=None)
    target = Target.of(spec, LENGTH)
    chosen = method("linear", target.geometry, LENGTH)
    expression = express(chosen, target.geometry, LENGTH)
    write(spec, expression, target, tmp_path / "exported")
    config = load_config(spec)
    set_window(config, None)
    model = loaded(tmp_path / "source", config=config)
    with applied(model, chosen, LENGTH):
        ours = logits(model, tokens(LENGTH))
    torch.testing.assert_close(logits(loaded(tmp_path / "exported"), tokens(LENGTH)), ours, atol=1e-5, rtol=0)
    assert '"sliding_window": 1073741824' in ENGINES["vllm"](expression, target).lines[0]
    assert any("sliding_window" in note for note in ENGINES["llama_cpp"](expression, target).notes)


def test_local_layers_that_are_to_be_scaled_as_well_are_refused(tmp_path):
    tiny_model(tiny_config("gemma3_text")).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="scales local layers as well"):
        Target.of(ModelSpec(name="gemma3", path=str(tmp_path), sliding_window=None), LENGTH)


def test_files_are_links_and_the_configuration_is_new(source, tmp_path):
    _, spec = source
    target = Target.of(spec, LENGTH)
    write(spec, express(method("linear", target.geometry, LENGTH), target.geometry, LENGTH), target, tmp_path / "new")
    assert (tmp_path / "new" / "model.safetensors").is_symlink()
    written = json.loads((tmp_path / "new" / "config.json").read_text())
    scaled = written["rope_parameters"]
    assert scaled.get("full_attention", scaled)["rope_type"] in ("linear", "longrope")
    assert not (tmp_path / "new" / "config.json").is_symlink()


def test_a_folder_that_holds_something_is_left_alone(source, tmp_path):
    _, spec = source
    target = Target.of(spec, LENGTH)
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(UserError, match="new or empty folder"):
        write(spec, express(method("linear", target.geometry, LENGTH), target.geometry, LENGTH), target, tmp_path)
    assert (tmp_path / "kept").read_text() == "mine"
