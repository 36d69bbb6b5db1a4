"""Every mode sees a model's own window, longer than any probe; models that see later tokens are refused."""

import pytest
import torch

from harness.engine.engine import Engine
from harness.engine.spec import EngineSpec
from harness.errors import UserError
from harness.models.checkpoint.load import load
from harness.models.checkpoint.spec import ModelSpec
from harness.models.probe import check_causal
from tests.models.checkpoint.test_load import save_tokenizer
from tests.tiny import COMMON, logits, tiny_config, tiny_model, tokens

LENGTH = 120
WINDOW = 40
LOCAL = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
AFMOE = {  # hands its mask to attention by name
    **LOCAL, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "num_dense_layers": 1,
}  # fmt: skip
FAMILIES = {
    "afmoe": AFMOE,
    "gemma3_text": LOCAL,
    "gemma2": LOCAL,
    "mistral": {"sliding_window": WINDOW},
    "olmo3": LOCAL,
    "gpt_oss": LOCAL,
    "llama4_text": {"attention_chunk_size": WINDOW},
}


def made(family, **changes):
    needs = {**FAMILIES[family], **changes}
    if family == "afmoe":
        from transformers import AutoConfig

        return tiny_model(AutoConfig.for_model(family, **{**COMMON, **needs}))
    return tiny_model(tiny_config(family, **needs))


def losses(model, ids):
    """-log p of every token but the first, from full logits in float64; (rows, length - 1)."""
    logs = logits(model, ids)[:, :-1].double().log_softmax(-1)
    return -logs.gather(-1, ids[:, 1:, None])[..., 0]


@pytest.mark.parametrize("mode", ["layered", "sliced", "plain", "auto"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_window_longer_than_a_probe_is_seen_in_every_mode(family, mode):
    model, ids = made(family), tokens(LENGTH, 2)
    own = losses(model, ids)
    free = {"attention_chunk_size": LENGTH} if family == "llama4_text" else {"sliding_window": LENGTH}
    unlimited = losses(made(family, **free), ids)
    assert (own - unlimited)[:, WINDOW:].abs().max() > 1e-3  # the window matters at this length
    engine = Engine(model, EngineSpec(mode=mode, tokens_per_batch=2 * LENGTH))
    found = engine.token_nll(ids, 1)
    torch.testing.assert_close(found.double(), own, rtol=0, atol=1e-4)


def test_models_that_see_later_tokens_are_refused():
    from transformers import BertConfig, BertLMHeadModel

    config = BertConfig(
        vocab_size=96,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        is_decoder=False,
    )
    with pytest.raises(UserError, match="depends on later tokens"):
        check_causal(BertLMHeadModel(config).eval())
    check_causal(made("mistral"))


def banded(model, ids, window):
    """The same weights where every token sees `window` tokens, itself among them: a mask of its own over all layers."""
    place = torch.arange(ids.shape[1])
    distance = place[:, None] - place[None]
    seen = (distance >= 0) & (distance < window)
    with torch.no_grad():
        given = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
        logs = model(ids, attention_mask=given, use_cache=False).logits[:, :-1].double().log_softmax(-1)
    return -logs.gather(-1, ids[:, 1:, None])[..., 0]


TAKES_A_WINDOW = {  # families whose layers all look at the field, which is null in their configuration
    "mistral": {},
    "mixtral": {},
    "phi3": {},
    "starcoder2": {"sliding_window": None},
    "qwen3_moe": {"use_sliding_window": False},  # as its checkpoints have it
}


@pytest.mark.parametrize("window", [1, 16])
@pytest.mark.parametrize("family", TAKES_A_WINDOW)
def test_a_window_that_is_asked_for_acts_where_layers_take_one(tmp_path, family, window):
    made = tiny_model(tiny_config(family, **TAKES_A_WINDOW[family]))
    assert made.config.sliding_window is None
    made.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    ids = tokens(60)
    model = load(ModelSpec(name="made", path=str(tmp_path), sliding_window=window)).model
    torch.testing.assert_close(losses(model, ids), banded(made, ids, window), rtol=0, atol=1e-4)
    assert (losses(model, ids) - losses(made, ids))[:, window:].abs().max() > 1e-3
    for mode in ("layered", "sliced"):
        found = Engine(model, EngineSpec(mode=mode)).token_nll(ids, 1)
        torch.testing.assert_close(found.double(), banded(made, ids, window), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "needs"),
    [
        ("llama", {}), ("gpt_neox", {}), ("qwen2", {"use_sliding_window": False}), ("gemma", {}), ("deepseek_v3", {}),
        ("olmo3", {"layer_types": ["full_attention"] * 2}),
    ],
)  # fmt: skip
def test_a_window_is_refused_where_no_layer_takes_one(tmp_path, family, needs):
    tiny_model(tiny_config(family, **needs)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(UserError, match=f"model.sliding_window: {family} has no layers that see only a window"):
        load(ModelSpec(name="made", path=str(tmp_path), sliding_window=16))
