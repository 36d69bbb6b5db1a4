"""The door to a ready model hands out what its specs ask for."""

import pytest
import torch

from harness.engine.modes import MODES
from harness.engine.nll import token_nll
from harness.engine.ready import ready
from harness.engine.spec import EngineSpec
from harness.errors import UserError
from harness.models.checkpoint.spec import ModelSpec
from tests.models.checkpoint.test_load import save_tokenizer
from tests.tiny import tiny_config, tiny_model, tokens

REFERENCE = {"name": "reference", "package": "harness.models.reference"}


def test_losses_are_those_of_the_model_that_is_named():
    engine, trained, device = ready(ModelSpec(**REFERENCE), EngineSpec(), "cpu", "float32")
    assert (trained, device, engine.mode) == (512, "cpu", MODES["layered"])
    assert not engine.model.training
    ids = tokens(40)
    expected = token_nll(engine.model, ids, 1, sliced=False)
    torch.testing.assert_close(engine.token_nll(ids, 1), expected, atol=5e-5, rtol=0)  # of losses near 9


def test_specs_decide_precision_attention_mode_and_trained_length():
    model = ModelSpec(**REFERENCE, original_max_position_embeddings=256)
    found = ready(model, EngineSpec(attention="eager", mode="sliced", tokens_per_batch=77), "cpu", "bfloat16")
    assert found.trained == 256
    assert (found.engine.mode, found.engine.tokens_per_batch) == (MODES["sliced"], 77)
    assert found.engine.model.dtype == torch.bfloat16
    assert found.engine.model.config._attn_implementation == "eager"


FALCON = {
    "biases": {"alibi": True, "new_decoder_architecture": False, "multi_query": False},
    "biases, one key head": {"alibi": True, "new_decoder_architecture": False, "multi_query": True},
    "biases, grouped heads": {"alibi": True, "new_decoder_architecture": True, "num_kv_heads": 2},
}


@pytest.mark.parametrize("name", FALCON)
def test_attention_that_gives_other_losses_than_the_usual_one_is_refused(tmp_path, name):
    """Falcon adds its biases twice under eager attention: rows would not say which attention they are of."""
    tiny_model(tiny_config("falcon", **FALCON[name])).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    model = ModelSpec(name="falcon", path=str(tmp_path))
    with pytest.raises(UserError, match=r"engine.attention=eager gives other losses than sdpa, .* leave it at auto"):
        ready(model, EngineSpec(attention="eager"), "cpu", "float32")
    assert ready(model, EngineSpec(attention="sdpa"), "cpu", "float32").engine.model is not None


@pytest.mark.parametrize(
    ("family", "needs"),
    [
        ("falcon", {}), ("llama", {}), ("mistral", {"sliding_window": 40}), ("gemma3_text", {}), ("gpt_oss", {}),
        ("gemma2", {}),
    ],
)  # fmt: skip
def test_attention_that_is_named_and_gives_the_same_is_taken(tmp_path, family, needs):
    tiny_model(tiny_config(family, **needs)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    found = ready(ModelSpec(name="m", path=str(tmp_path)), EngineSpec(attention="eager"), "cpu", "float32")
    assert found.engine.model.config._attn_implementation == "eager"


def test_attention_that_loses_a_window_is_seen(tmp_path, monkeypatch):
    tiny_model(tiny_config("mistral", sliding_window=40)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    own = "transformers.models.mistral.modeling_mistral.eager_attention_forward"

    def without_window(module, query, key, value, attention_mask, scaling, **_):
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        future = torch.ones(query.shape[2], key.shape[2]).triu(1).bool()
        scores = (query @ key.transpose(2, 3) * scaling).masked_fill(future, -torch.inf)
        return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None

    monkeypatch.setattr(own, without_window)
    with pytest.raises(UserError, match=r"engine.attention=eager gives other losses than sdpa"):
        ready(ModelSpec(name="m", path=str(tmp_path)), EngineSpec(attention="eager"), "cpu", "float32")


def test_a_model_without_rotary_embedding_has_no_trained_length(tmp_path):
    tiny_model(tiny_config("gpt2")).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    assert ready(ModelSpec(name="gpt2", path=str(tmp_path)), EngineSpec(), "cpu", "float32").trained is None


def test_a_mode_that_the_model_cannot_run_is_an_error(tmp_path):
    tiny_model(tiny_config("gptj")).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(UserError, match="engine.mode=layered cannot run GPTJForCausalLM"):
        ready(ModelSpec(name="gptj", path=str(tmp_path)), EngineSpec(mode="layered"), "cpu", "float32")
