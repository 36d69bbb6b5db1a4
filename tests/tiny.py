"""Tiny random causal language models of many families, built from configurations alone."""

import copy
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

TRAINED = 32  # tokens: max_position_embeddings of every tiny model
VOCABULARY = 96

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": TRAINED,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS = {"head_dim": 16}
LOCAL = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}

FAMILIES: dict[str, dict[str, Any]] = {  # model_type -> what it needs beyond COMMON
    "llama": {},
    "mistral": {**HEADS, "sliding_window": None},
    "mixtral": {**HEADS, "num_local_experts": 4},
    "qwen2": {},
    "qwen3": HEADS,
    "qwen3_moe": {**EXPERTS, **HEADS},
    "phi": {},
    "phi3": {},
    "gemma": HEADS,
    "gemma2": {**HEADS, **LOCAL},
    "gemma3_text": {**HEADS, **LOCAL},
    "cohere": {},
    "cohere2": {**HEADS, **LOCAL},
    "glm": HEADS,
    "glm4": HEADS,
    "olmo": {},
    "olmo2": {},
    "olmo3": LOCAL,
    "stablelm": {"partial_rotary_factor": 0.5},
    "granite": {},
    "starcoder2": {},
    "gpt_neox": {"partial_rotary_factor": 0.5},
    "falcon": {"alibi": False, "new_decoder_architecture": False},
    "persimmon": {},
    "smollm3": {"no_rope_layers": [1, 1]},
    "ernie4_5": HEADS,
    "exaone4": LOCAL,
    "nemotron": HEADS,
    "deepseek_v2": {**LATENT, "topk_method": "greedy"},
    "deepseek_v3": LATENT,
    "llama4_text": {
        **HEADS,
        "intermediate_size_mlp": 64,
        "num_local_experts": 2,
        "no_rope_layers": [1, 1],
        "attention_chunk_size": 8,
        "layer_types": ["chunked_attention", "full_attention"],
        "attn_temperature_tuning": False,
    },
    "minimax": {**HEADS, "num_local_experts": 4, "layer_types": ["linear_attention", "full_attention"]},
    "bitnet": {},
    "seed_oss": HEADS,
    "arcee": HEADS,
    "diffllama": HEADS,
    "modernbert-decoder": {
        "local_attention": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "sep_token_id": 2,
        "cls_token_id": 1,
    },
    "gpt_oss": {**HEADS, **LOCAL, "num_local_experts": 4},
    "apertus": {},
    "helium": HEADS,
}

WITHOUT_ROTARY: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "bloom": {},
    "mpt": {"attn_config": {"alibi": True}},
}
WITH_TABLES: dict[str, dict[str, Any]] = {"gptj": {"rotary_dim": 8}, "codegen": {"rotary_dim": 8}}


def tiny_config(family: str, **overrides: Any) -> Any:
    """The family's configuration, tiny, without scaling whatever its defaults declare."""
    needs = {**FAMILIES, **WITHOUT_ROTARY, **WITH_TABLES}[family]
    config = AutoConfig.for_model(family, **{**COMMON, **needs, **overrides})
    if hasattr(config, "original_max_position_embeddings"):
        config.original_max_position_embeddings = TRAINED
    if getattr(config, "rope_parameters", None) and "rope_parameters" not in overrides:
        config.rope_parameters = unscaled(config.rope_parameters)
    return config


def tiny_model(config: Any, seed: int = 0, spread: float = 0.1) -> nn.Module:
    """A model in eval mode whose matrices are normal with this standard deviation: large enough to feel positions."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, spread)
    return model


def tiny_llama(**overrides: Any) -> nn.Module:
    """The plainest rotary model."""
    return tiny_model(tiny_config("llama", **overrides))


def with_scaling(model: nn.Module, **declared: Any) -> nn.Module:
    """The same weights in a model whose own configuration declares this scaling (of full attention)."""
    config = copy.deepcopy(model.config)
    parameters = config.rope_parameters
    parameters.get("full_attention", parameters).update(declared)
    scaled = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    scaled.load_state_dict(model.state_dict())
    return scaled


def tokens(length: int, rows: int = 1, seed: int = 1) -> torch.Tensor:
    """Random token ids (rows, length)."""
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def logits(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """The model's own logits, nothing cached."""
    with torch.no_grad():
        return model(ids, use_cache=False).logits


# Of rope parameters; the last two scale queries, not frequencies (Ministral 3).
UNSCALED = ("rope_theta", "partial_rotary_factor", "llama_4_scaling_beta", "original_max_position_embeddings")


def unscaled(parameters: dict[str, Any]) -> dict[str, Any]:
    """Rope parameters without the scaling that they declare."""
    nested = {key: value for key, value in parameters.items() if isinstance(value, dict | None)}
    if nested:
        return {key: value and unscaled(value) for key, value in nested.items()}
    known = UNSCALED if UNSCALED[2] in parameters else UNSCALED[:2]
    kept = {key: parameters[key] for key in known if key in parameters}
    return {**kept, "rope_type": "default"}
