"""Tiny models of every family of the installed transformers whose configuration may limit what attention sees.

Families are found by the names of fields in their configurations; NEEDS says what some of them must be given to be
small or to use what they declare.
"""

import re
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.models.tiny_families import random_weights

WINDOW = 20  # tokens or keys: every limit of these models
VOCABULARY = 96
LARGEST = 2e7  # weights
DRAFTS = ("gemma4_assistant",)  # read what another model computed

# Fields that may say what attention sees; those of them that say something else; those that are a number of tokens.
ATTENTION = re.compile(
    r"window|chunk|sparse|top_?k|local|block|index|compress|stride|sliding|dilat|bucket|hash|landmark|budget"
    r"|(attention|attn|layer|block)s?_types?$"
)
OTHERWISE = re.compile(
    r"experts?($|_)|^(moe|mlp|mtp|ffn)_|_feed_forward$|^(moe_topk|topk_group|topk_method|norm_topk_prob)$"
    r"|^(mamba_)?chunk_size|chunkwise|chunksize|sparsity|sparse_step|_token_|_index$|dropout"
)
TOKENS = re.compile(
    r"window(_size|_len)?$|^attention_chunk_size$|chunk_length$|^local_attention$|topk$|^indexer_budget$"
)
SIZES: dict[str, Any] = {
    **{"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "max_position_embeddings": 512},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    **{"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2},
    **{"moe_intermediate_size": 32, "n_group": 1, "topk_group": 1, "n_shared_experts": 1},
    **{"kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16},
    **{"index_head_dim": 16, "index_n_heads": 2, "router_hidden_size": 16},
}
BLOCKS = "index_topk_blocks"  # a limit in blocks of 4 tokens
ROPE = {"rope_type": "default", "rope_theta": 1e4}
HALF = {**ROPE, "partial_rotary_factor": 0.5}
LATENT_WINDOW = {  # of layers that see only a window, which have sizes of their own
    **{"swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_q_lora_rank": 24, "swa_kv_lora_rank": 16},
    **{"swa_head_dim": 32, "swa_qk_nope_head_dim": 16, "swa_qk_rope_head_dim": 16, "swa_v_head_dim": 16},
}
TWO_KINDS = {"layer_types": ["sliding_attention", "full_attention"]}
BYTES = {**SIZES, "hidden_size_global": 64, "head_dim": 16}
NEEDS: dict[str, dict[str, Any]] = {
    "big_bird": {"is_decoder": True, "attention_type": "original_full"},
    "bigbird_pegasus": {
        **{"d_model": 64, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4},
        **{"decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96},
    },
    "blt": {
        "patcher_config": BYTES, "encoder_config": BYTES, "decoder_config": BYTES, "global_config": BYTES,
        "encoder_hash_byte_group_vocab": 50, "patching_threshold": 0.1,
    },
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "deepseek_v4": {"compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8}},
    "dots3_note_text": LATENT_WINDOW,
    "gemma3n_text": {
        **{"hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": VOCABULARY, "altup_num_inputs": 2},
        **{"num_kv_shared_layers": 0, "laurel_rank": 8, "activation_sparsity_pattern": [0.0, 0.0]},
        "intermediate_size": [96, 96],
    },
    "gemma4_text": {
        **{"hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": VOCABULARY, "global_head_dim": 32},
        **TWO_KINDS,
    },
    "gemma4_unified_text": {**TWO_KINDS, "global_head_dim": 32},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "mimo_v2_flash": {"rope_parameters": {"full_attention": HALF, "sliding_attention": HALF}},
    "kimi_linear": {"linear_head_dim": 16, "linear_num_heads": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "minimax_m3_vl_text": {
        **{"layer_types": ["minimax_m3_sparse", "full_attention"], "index_block_size": 4, BLOCKS: 3},
    },
    "qwen4_exp_text": {
        **{"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_compress_ratio": 4},
    },
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        **{"is_decoder": True, "attn_layers": ["local", "lsh"], "axial_pos_shape": [8, 64], "num_buckets": 4},
        **{"axial_pos_embds_dim": [16, 48], "attention_head_size": 16, "feed_forward_size": 96},
    },
    "phi4_multimodal": {
        "vision_config": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        "audio_config": {"hidden_size": 32, "intermediate_size": 32, "num_blocks": 1, "num_attention_heads": 2},
    },
    "xlnet": {"d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 96},
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"]},
    "zamba2": {"num_hidden_layers": 2, "layers_block_type": ["linear_attention", "hybrid"], "n_mamba_heads": 8},
    "zaya": {"num_experts_per_tok": 1, "layer_types": ["hybrid", "hybrid_sliding"]},
}  # fmt: skip


def limits_of(config: PretrainedConfig) -> dict[str, Any]:
    """Fields of a text configuration that may limit attention."""
    return {k: v for k, v in vars(config).items() if ATTENTION.search(k) and not OTHERWISE.search(k)}


def families() -> list[str]:
    """Families with a causal language model and a field that may limit attention, wrappers by their text part."""
    found = set()
    for family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        if family in DRAFTS:
            continue
        try:
            text = CONFIG_MAPPING[family]().get_text_config(decoder=True)
        except StrictDataclassError:  # older transformers: some are made of other models' and have no default
            continue
        if limits_of(text):
            found.add(text.model_type if text.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else family)
    return sorted(found)


def tiny_config(family: str, window: int = WINDOW) -> PretrainedConfig:
    """A family's configuration with a layer of every kind that its default has, each limit `window` tokens."""
    default = CONFIG_MAPPING[family]()
    fields = vars(default)
    names = {*fields, *default.attribute_map, "pad_token_id", "bos_token_id", "eos_token_id"}
    made = {name: value for name, value in SIZES.items() if name in names}
    if "kv_lora_rank" in fields:
        made["num_key_value_heads"] = made["num_attention_heads"]
    kinds = sorted(set(fields.get("layer_types") or ()))
    if kinds == ["full_attention"] and "sliding_window" in fields:
        kinds += ["sliding_attention"]
    if kinds:
        made["layer_types"] = kinds * (1 if len(kinds) > 1 else 2)
        made["num_hidden_layers"] = len(made["layer_types"])
    if some := sorted(set(fields.get("mlp_layer_types") or ())):
        made["mlp_layer_types"] = (3 * some)[: made["num_hidden_layers"]]
    made |= {name: window for name in limits_of(default) if TOKENS.search(name)}
    if "use_sliding_window" in fields:
        made |= {"use_sliding_window": True, "max_window_layers": 1}
    needs = {k: v * window // WINDOW if k == BLOCKS else v for k, v in NEEDS.get(family, {}).items()}
    return CONFIG_MAPPING[family](**{**made, **needs})


def tiny(family: str, window: int = WINDOW, config: PretrainedConfig | None = None) -> nn.Module:
    """The family's model, its matrices normal and large enough for a window to be felt."""
    config = config or tiny_config(family, window)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    assert size < LARGEST, f"{family} needs more small sizes: it has {size} weights"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    return random_weights(model)
