"""A checkpoint whose weights and configuration do not belong together is one line, before anything is computed."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from harness.errors import UserError
from harness.models.checkpoint import fits
from harness.models.checkpoint.header import header
from harness.models.checkpoint.load import load, load_config
from tests.models.checkpoint.test_load import refusal, save_tokenizer, spec_of
from tests.tiny import FAMILIES, VOCABULARY, WITH_TABLES, WITHOUT_ROTARY, logits, tiny_config, tiny_model, tokens


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


def save(folder, family="llama", **config):
    tiny_model(tiny_config(family, **config)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def edit(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def change(folder, add=(), drop=(), rename=None):
    """Change the tensors of a checkpoint."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights = {(rename or {}).get(key, key): value for key, value in weights.items() if key not in drop}
    save_file(weights | {key: torch.zeros(3) for key in add}, file, {"format": "pt"})


def early_and_late(folder, **fields):
    """The line before anything is computed; the loader alone, of which the header knows nothing, says the same."""
    with pytest.raises(UserError) as raised:
        header(spec_of(folder, **fields))
    early = str(raised.value)
    assert early == refusal(folder, **fields)
    return early


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "mixtral", "gpt2"])
def test_more_layers_than_the_config_says(tmp_path, family):
    folder = save(tmp_path, family)
    edit(folder, **{"n_layer" if family == "gpt2" else "num_hidden_layers": 1})
    assert "weights that its config has no place for, as " in early_and_late(folder)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "mixtral"])
def test_fewer_layers_than_the_config_says(tmp_path, family):
    folder = save(tmp_path, family)
    edit(folder, num_hidden_layers=3, layer_types=None)
    assert "weights are not in the checkpoint, as " in early_and_late(folder)


@pytest.mark.parametrize(
    ("family", "values"),
    [("llama", {"vocab_size": 95}), ("llama", {"intermediate_size": 80}), ("gpt_neox", {"vocab_size": 97}),
     ("mixtral", {"intermediate_size": 80})],
)  # fmt: skip
def test_other_shapes_than_the_config_says(tmp_path, family, values):
    folder = save(tmp_path, family)
    edit(folder, **values)
    assert " weights have other shapes than the config says, as " in early_and_late(folder)


def test_tensors_that_have_no_place_and_such_as_are_known_to_be_spare(tmp_path):
    folder = save(tmp_path)
    change(folder, add=["model.layers.0.self_attn.q_proj.lora_A.weight", "v_head.summary.weight"])
    message = early_and_late(folder)
    assert "holds 1 weights that its config has no place for, as model.layers.0.self_attn.q_proj.lora_A" in message
    change(folder, drop=["model.layers.0.self_attn.q_proj.lora_A.weight"], add=["model.layers.0.rotary_emb.inv_freq"])
    assert header(spec_of(folder)).vocabulary == VOCABULARY
    model = load(spec_of(folder), attn_implementation="eager").model
    assert torch.equal(logits(model, tokens(20)), logits(tiny_model(tiny_config("llama")), tokens(20)))


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("twice_in", ["1", "2"])
def test_a_weight_in_two_files_is_refused_whichever_the_index_names(tmp_path, family, twice_in):
    folder = save(tmp_path, family)
    whole = folder / "model.safetensors"
    weights = load_file(whole)
    whole.unlink()
    names = sorted(weights)
    parts = {"1": names[: len(names) // 2], "2": names[len(names) // 2 :]}
    named = {key: f"{part}.safetensors" for part, keys in parts.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": named}))
    for part, keys in parts.items():
        save_file({key: weights[key] for key in keys}, folder / f"{part}.safetensors", {"format": "pt"})
    assert header(spec_of(folder)).vocabulary == VOCABULARY
    other = {"1": names[-1], "2": names[0]}[twice_in]
    added = {key: weights[key] for key in parts[twice_in]} | {other: weights[other] + 1}
    save_file(added, folder / f"{twice_in}.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"1 weights are in two files, as {other}"):
        header(spec_of(folder))


def test_every_family_fits_itself(tmp_path, monkeypatch):
    """By what the loader reports of declared tensors: no family is left to the report of the real loading."""
    looked_at = []
    check = fits.check_report
    monkeypatch.setattr(fits, "check_report", lambda *args: looked_at.append(1) or check(*args))
    families = [*FAMILIES, *WITHOUT_ROTARY, *WITH_TABLES]
    for family in families:
        folder = save(tmp_path / family, family)
        spec = spec_of(folder)
        assert fits.rows_of_embedding(spec, load_config(spec)) == VOCABULARY, family
    assert len(looked_at) == len(families)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "mistral"])
@pytest.mark.parametrize("pad", [96, 1000, -97])
def test_a_pad_id_outside_the_embedding(tmp_path, family, pad):
    folder = save(tmp_path, family)
    edit(folder, pad_token_id=pad)
    with pytest.raises(UserError, match=f"pad_token_id must lie below the vocab_size of 96, got {pad}"):
        header(spec_of(folder))


@pytest.mark.parametrize(
    "values", [{"num_attention_heads": 0}, {"hidden_act": "absent"}, {"hidden_size": "64"}, {"head_dim": -1}]
)
def test_a_config_that_describes_no_model(tmp_path, values):
    folder = save(tmp_path)
    edit(folder, **values)
    with pytest.raises(UserError) as raised:
        header(spec_of(folder))
    assert "\n" not in str(raised.value)


# Trusted code --------------------------------------------------------------------------------------------------------

CONFIGURATION = "from transformers import LlamaConfig\nclass OwnConfig(LlamaConfig):\n    model_type = 'own{}'\n"
MODEL = (
    "from transformers import LlamaForCausalLM\nfrom .configuration_own import OwnConfig\n"
    "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
)


@pytest.mark.parametrize("architectures", [["ChatGLMModel"], ["OwnEncoder"], None, "ChatGLMModel"])
def test_code_that_is_trusted_needs_no_known_name(tmp_path, architectures, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)
    number = abs(hash(str(architectures))) % 10**6
    folder = save(tmp_path / "m")
    (folder / "configuration_own.py").write_text(CONFIGURATION.format(number))
    (folder / "modeling_own.py").write_text(MODEL)
    auto_map = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    edit(folder, model_type=f"own{number}", architectures=architectures, auto_map=auto_map)
    with pytest.raises(UserError, match="trust_remote_code=true"):
        header(spec_of(folder))
    known = header(spec_of(folder, trust_remote_code=True))
    model = load(spec_of(folder, trust_remote_code=True), attn_implementation="eager").model
    assert torch.equal(logits(model, tokens(20)), logits(tiny_model(tiny_config("llama")), tokens(20)))
    (folder / "modeling_own.py").write_text(MODEL + "# other code\n")
    assert header(spec_of(folder, trust_remote_code=True)).fingerprint != known.fingerprint


def test_architectures_that_are_no_list_are_named_whole(tmp_path):
    folder = save(tmp_path)
    edit(folder, architectures="LlamaModel")
    assert refusal(folder) == "model tiny is no causal language model, got LlamaModel."
    edit(folder, architectures="LlamaForCausalLM")
    assert header(spec_of(folder)).vocabulary == VOCABULARY


def test_a_tied_head_and_a_padded_embedding_fit(tmp_path):
    config = LlamaConfig(**{**tiny_config("llama").to_dict(), "tie_word_embeddings": True})
    tied = LlamaForCausalLM(config)
    tied.save_pretrained(tmp_path / "tied")
    save_tokenizer(tmp_path / "tied")
    assert header(spec_of(tmp_path / "tied")).vocabulary == VOCABULARY
    tied.resize_token_embeddings(128)
    tied.save_pretrained(tmp_path / "padded")
    for file in (tmp_path / "tied").glob("tokenizer*"):
        shutil.copy(file, tmp_path / "padded")
    assert header(spec_of(tmp_path / "padded")).vocabulary == 128
