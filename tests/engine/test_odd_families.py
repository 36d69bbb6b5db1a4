"""Families that are put together in ways of their own run in bounded memory, and give their own losses."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    RobertaConfig,
    RobertaForCausalLM,
    XLNetConfig,
    XLNetLMHeadModel,
)

from harness import methods
from harness.engine.budget import Budget
from harness.engine.engine import Engine
from harness.engine.spec import EngineSpec
from harness.errors import UserError
from harness.models.install import applied
from harness.models.parts import widths
from harness.models.probe import check_causal
from tests.tiny import COMMON, LOCAL, TRAINED, logits, tiny_config, tokens

MAMBA = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 96, "state_size": 8}
FALCON = {"alibi": True, "new_decoder_architecture": False}
GEMMA3N = {
    **{**LOCAL, "head_dim": 16, "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 96},
    **{"altup_num_inputs": 2, "num_kv_shared_layers": 0, "laurel_rank": 8, "activation_sparsity_pattern": [0.0, 0.0]},
}
VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION |= {"image_size": 16, "patch_size": 8}


def random(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.1)
    return model.eval()


def made(family, **needs):
    config = AutoConfig.for_model(family, **{**COMMON, **needs})
    attention = "sdpa" if family == "falcon" else "eager"  # Falcon adds its biases twice under eager attention
    return random(AutoModelForCausalLM.from_config(config, attn_implementation=attention))


def gemma3():
    text = {**COMMON, **LOCAL, "head_dim": 16, "model_type": "gemma3_text"}
    config = Gemma3Config(
        text_config=text, vision_config={**VISION, "model_type": "siglip_vision_model"}, mm_tokens_per_image=4,
        image_token_index=95, boi_token_index=93, eoi_token_index=94,
    )  # fmt: skip
    return random(Gemma3ForConditionalGeneration(config))


def llava():
    vision = {**VISION, "model_type": "clip_vision_model", "projection_dim": 32}
    text = {**COMMON, "model_type": "llama"}
    return random(
        LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision, image_token_index=95))
    )


MODELS = {
    "biases in place of rotations": lambda: made("falcon", **FALCON),
    "biases, grouped heads": lambda: made("falcon", alibi=True, new_decoder_architecture=True, num_kv_heads=2),
    "biases, one key head": lambda: made("falcon", **FALCON, multi_query=True),
    "recurrence and attention without positions": lambda: made(
        "nemotron_h", hybrid_override_pattern="M*", mamba_num_heads=8, mamba_head_dim=16, ssm_state_size=16,
        chunk_size=8, head_dim=16, n_groups=1,
    ),
    "recurrence, attention and experts": lambda: made(
        "jamba", attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, num_experts=2,
        mamba_d_state=8, use_mamba_kernels=False,
    ),
    "recurrence alone": lambda: made("mamba", **MAMBA),
    "an inner width for each layer": lambda: made("gemma3n_text", **GEMMA3N, intermediate_size=[96, 96]),
    "inner widths that differ": lambda: made("gemma3n_text", **GEMMA3N, intermediate_size=[64, 128]),
    "text beside pictures": gemma3,
    "another wrapper": llava,
    "a head beside cross-attention": lambda: made("biogpt"),
    "one key head, cross-attention": lambda: made("gpt_bigcode", n_positions=256),
    "a head that scales by a field of its body": lambda: made(
        "falcon_h1", mamba_d_ssm=64, mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8, mamba_chunk_size=8,
        lm_head_multiplier=0.5, head_dim=16,
    ),
}  # fmt: skip
GOES_ON = [name for name in MODELS if name.startswith(("biases", "recurrence"))]


def losses(model, ids):
    """-log p of every token but the first in float64, (rows, length - 1)."""
    logs = logits(model, ids)[:, :-1].double().log_softmax(-1)
    return -logs.gather(-1, ids[:, 1:, None])[..., 0]


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_bounded_and_losses_are_the_models_own(name):
    model, ids = MODELS[name](), tokens(TRAINED, 2) % 90
    expected = losses(model, ids)
    engine = Engine(model, EngineSpec(mode="sliced"))
    assert engine.tokens_per_batch > 0
    torch.testing.assert_close(engine.token_nll(ids, 1).double(), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(engine.token_nll(ids, 20).double(), expected[:, 19:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", GOES_ON)
@pytest.mark.parametrize("method", ["none", "native"])
def test_models_whose_positions_do_not_end_run_beyond_the_declared_length(name, method):
    model, ids = MODELS[name](), tokens(3 * TRAINED, 2)
    expected = losses(model, ids)
    with applied(model, methods.METHODS[method](), ids.shape[1]):
        found = Engine(model, EngineSpec()).token_nll(ids, 1)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", GOES_ON)
def test_models_without_rotations_refuse_methods_that_change_them(name):
    model = MODELS[name]()
    with pytest.raises(UserError, match="has no rotary embedding"), applied(model, methods.METHODS["ntk"](), TRAINED):
        pass


def test_the_widest_layer_counts_for_memory():
    model = MODELS["inner widths that differ"]()
    assert widths(model).inner == 128
    assert Budget.of(model).tokens_per_batch() > 0


def seeing_ahead():
    """Models that are asked for as causal ones, and are none."""
    sizes = {
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    yield BertLMHeadModel(BertConfig(**sizes))
    yield RobertaForCausalLM(RobertaConfig(**sizes))
    yield XLNetLMHeadModel(XLNetConfig(vocab_size=96, d_model=32, n_layer=2, n_head=2, d_inner=48))


@pytest.mark.parametrize("number", range(3))
def test_models_that_see_later_tokens_are_refused_in_every_mode(number):
    model = random(list(seeing_ahead())[number])
    for mode in ("auto", "plain"):
        with pytest.raises(UserError, match="is no causal language model: what it predicts depends on later tokens"):
            Engine(model, EngineSpec(mode=mode))


@pytest.mark.parametrize(("layer", "heads"), [(0, slice(0, 1)), (1, slice(3, 4)), (1, slice(None))])
def test_one_head_that_sees_ahead_is_enough(monkeypatch, layer, heads):
    """The mask of some heads of one layer lets everything through."""
    model = random(AutoModelForCausalLM.from_config(tiny_config("llama"), attn_implementation="eager"))
    check_causal(model)
    attention = model.model.layers[layer].self_attn
    before = attention.forward

    def forward(hidden_states, position_embeddings=None, attention_mask=None, **options):
        mask = attention_mask.repeat(1, 4, 1, 1)
        mask[:, heads] = 0
        return before(hidden_states, position_embeddings, mask, **options)

    monkeypatch.setattr(attention, "forward", forward)
    with pytest.raises(UserError, match="depends on later tokens"):
        check_causal(model)
