"""Tiny random models of every family of the installed transformers, by one rule.

A family's own default configuration is taken and made small: widths, heads, experts, vocabulary and windows by their
names, layers down to the first of each kind. What the family declares of its rotations stays: types, factors, thetas,
which layers have them. Towers for other senses keep their widths, since text never passes through them, and lose
layers.
"""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

TRAINED = 32  # tokens
VOCABULARY = 128  # the upper quarter holds the ids of pictures and other marks
TEXT_IDS = (3, 96)  # ids that are text in every tiny model
WIDTH, HEADS, HEAD_DIM, REACH = 64, 4, 16, 8

ALL = sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES})

# Names of fields, whole, and what they become in the language model
SMALL: list[tuple[str, int]] = [
    (r"(\w+_)?vocab(_size)?|vocab_size_per_layer_input|ngram_vocab_size_base", VOCABULARY),
    (r"hidden_size|d_model|n_embd|dim_model|embed_dim|word_embed_proj_dim|dim|hidden_size_global|output_hidden_size"
     r"|embedding_size|encoder_hidden_size", WIDTH),
    (r"(swa_|index_|global_|linear_|v_|swa_v_|attention_)?head_dim|attention_key_dim|dim_head|kv_channels|d_kv"
     r"|linear_(key|value)_head_dim|mamba_d_head|mamba_head_dim|query_pre_attn_scalar", HEAD_DIM),
    (r"mamba_n_heads|mamba_num_heads|n_mamba_heads", 2 * HEADS),
    (r"mamba_d_ssm", 2 * WIDTH),
    (r"qk_head_dim", HEAD_DIM + HEAD_DIM // 2),
    (r"qk_rope_head_dim|rotary_dim", HEAD_DIM),
    (r"qk_nope_head_dim", HEAD_DIM // 2),
    (r"\w*lora_rank|laurel_rank|hc_lowrank|gated_norm_rank", 16),
    (r"((moe_)?shared_experts?|moe|shared|expert)_intermediate_size|expert_ffn_hidden_size", 32),
    (r"(\w+_)?intermediate_size(_mlp)?|ffn_dim|ffn_hidden_size|d_ff|dff|dim_ff|n_inner|(en|de)coder_ffn_dim", 96),
    (r"num_local_experts|num_experts|n_routed_experts|moe_num_experts", 8),
    (r"num_experts_per_tok(en)?|moe_topk|moe_k|moe_top_k|top_k_experts", 2),
    (r"n_group|num_expert_group", 2),
    (r"topk_group", 1),
    (r"hidden_size_per_layer_input|ple_embed_dim", 16),
    (r"(original_)?max_position_embeddings|n_positions|n_ctx|max_seq(uence)?_len(gth)?|model_max_length", TRAINED),
    (r"(sliding_|local_|swa_)?(attention_)?window(_size|_len)?|sliding_window_size|attention_chunk_size|local_attention"
     r"|local_attention_window_len|keep_window_size", REACH),
]  # fmt: skip
UNSET = {  # where a default says nothing, and code needs something
    **{"head_dim": HEAD_DIM, "num_experts_per_tok": 2, "top_k_experts": 2, "moe_intermediate_size": 32},
    **{"num_experts": 8, "num_local_experts": 8, "n_routed_experts": 8},
}
_BY_TYPE = {kind: {"rope_type": "default", "rope_theta": 10_000.0} for kind in ("full_attention", "sliding_attention")}
_ZAMBA = ["mamba", "mamba", "hybrid"]
_ZAMBA_WIDTHS = {"attention_head_dim": 2 * HEAD_DIM, "attention_hidden_size": 2 * WIDTH}
_INDEXER = {f"indexer_{key}": n for key, n in {"n_heads": 4, "kv_heads": 1, "head_dim": 16, "budget": 32}.items()}
_INDEXER["indexer_compress_ratio"] = 4
_GEMMA = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 2}
# Families whose default configurations make no model: what they lack, by path; * is every entry
GAPS: dict[str, dict[str, Any]] = {
    "aya_vision": {"vision_config.num_attention_heads": 16},
    "chameleon": {"vocabulary_map": {"<image>": 100}},
    "cohere_compass": {"text_config.rope_parameters": _BY_TYPE},
    "cohere_compass_text": {"rope_parameters": _BY_TYPE},
    "dbrx": {"attn_config.rope_theta": 10_000.0, "attn_config.clip_qkv": 8.0},
    "deepseek_ocr2": {"text_config.mlp_layer_types": ["dense", "sparse"]},
    "dots1": {"n_shared_experts": 1},
    "deepseek_vl_hybrid": {"high_res_vision_config.global_attn_indexes": [1]},
    "dots3_note": {
        "text_config.per_layer_config.*.head_dim": 32,
        "vision_config.adapter_out_dim": WIDTH,
        "audio_config.adapter_out_dim": WIDTH,
    },
    "dots3_note_text": {"per_layer_config.*.head_dim": 32},
    "granite4_vision": {"deepstack_layer_map": [], "spatial_target_layers": [], "downsample_rate": "1/2"},
    "blt": {"decoder_config.vocab_size": VOCABULARY},
    "bamba": {"attn_layer_indices": [1]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "granite_swa": {"layer_rope_theta": [10_000.0, 50_000.0], "layer_types": ["sliding_attention", "full_attention"]},
    "granitemoe_swa": {
        "layer_rope_theta": [10_000.0, 50_000.0],
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "molmo2": {"adapter_config.vision_feature_layer": [1, 0]},
    "qwen4_exp": {f"text_config.{key}": value for key, value in _INDEXER.items()},
    "qwen4_exp_text": _INDEXER,
    "recurrent_gemma": {"num_hidden_layers": 3},
    "xlstm": {"embedding_dim": WIDTH, "num_blocks": 2},
    "xlnet": {"d_head": HEAD_DIM},
    "zamba": {"layers_block_type": [*_ZAMBA, *_ZAMBA], **_ZAMBA_WIDTHS, "num_hidden_layers": 6},
    "zamba2": {"mamba_headdim": HEAD_DIM, **_ZAMBA_WIDTHS},
    "nemotron": {"num_key_value_heads": HEADS // 2},
    "zaya": {"num_experts_per_tok": 1},
    "gemma4_assistant": {"text_config.num_kv_shared_layers": 4},
    "reformer": {
        **{"attn_layers": ["local", "lsh"], "num_hidden_layers": 2, "axial_pos_shape": [8, 64], "num_buckets": 4},
        **{"axial_pos_embds_dim": [16, 48], "attention_head_size": HEAD_DIM, "feed_forward_size": 96},
        "max_position_embeddings": 512,
    },
    "pi0": {
        **{f"vlm_config.text_config.{key}": value for key, value in _GEMMA.items()},
        **{f"dit_config.{key}": value for key, value in _GEMMA.items()},
    },
    "mamba2": {"num_heads": 2 * HEADS},
    "step3p7": {
        "text_config.layer_types": ["full_attention", "sliding_attention"],
        "text_config.sliding_window": REACH,
        "text_config.per_layer_config": {1: {"num_attention_heads": 2 * HEADS}},
    },
}
DECODERS = (
    *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert"),
    *("rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl"),
)
# What a checkpoint of a family may declare that its default does not, and that makes another model of it
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"{family}, a decoder": (family, {"is_decoder": True}) for family in DECODERS},
    "xmod, a decoder": ("xmod", {"is_decoder": True, "default_language": "en_XX"}),
    "xlm, causal": ("xlm", {"causal": True}),
    "falcon, with ALiBi": ("falcon", {"alibi": True}),
    "granitemoehybrid, rotary": (
        "granitemoehybrid",
        {"position_embedding_type": "rope", "layer_types": ["mamba", "attention"], "num_hidden_layers": 2},
    ),
    "granitemoehybrid, rotary, without states": (
        "granitemoehybrid",
        {"position_embedding_type": "rope", "layer_types": ["attention", "attention"], "num_local_experts": 0},
    ),
    "zamba2, rotary": ("zamba2", {"use_mem_rope": True}),
}
# What defaults must be given to be valid at all
STARTS: dict[str, dict[str, Any]] = {
    "gemma4_assistant": {
        "text_config": {
            **{"model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0},
            **{"enable_moe_block": False, "use_double_wide_mlp": False, "num_kv_shared_layers": 30},
        }
    },
    "reformer": {"is_decoder": True},
}
HEAD_COUNTS = r"(swa_|index_|linear_)?(num_|n_)?(attention_)?(n_)?heads?|(en|de)coder_attention_heads"
KEY_HEADS = r"(swa_|linear_)?(num_|n_)?(key_value|kv|kv_n|query|key|value)_heads|kv_n_heads|num_kv_heads"
LAYER_COUNTS = (
    r"num_hidden_layers|n_layers?|num_layers|(en|de)coder_layers|num_(de|en)coder_layers|depth|layers|num_blocks"
)
OF_TOWERS = (  # what they are wide inside of their layers, and where they end
    r"intermediate_size|mlp_dim|(en|de)coder_ffn_dim|ffn_dim|out_hidden_size|text_hidden_size|vision_output_dim"
    r"|projection_dim"
)
KEY_SCALE = "qk_norm.temp"  # 0 until it is trained, so that positions would leave no trace (Zaya)
TOKEN = re.compile(r"(_id|_index|_ids|_token)$")


def default_config(family: str) -> PretrainedConfig:
    """The default configuration of a family."""
    return CONFIG_MAPPING[family](**STARTS.get(family, {}))


def tiny_family_config(family: str) -> PretrainedConfig:
    """The configuration of a family, or of a variant, with everything that it declares, and little of it."""
    family, says = VARIANTS.get(family, (family, {}))
    full = default_config(family)
    declared = full.to_dict()
    _shrink_towers(full, declared)
    for holder in _path_to_text(full, declared):
        _shrink(holder)
    _section_positions(full, holder)
    for path, value in {**GAPS.get(family, {}), **says}.items():
        _fill(declared, path.split("."), value)
    return type(full).from_dict(declared)


def tiny_family_model(
    config: PretrainedConfig, seed: int = 0, spread: float = 0.1, attention: str | None = "eager"
) -> nn.Module:
    """A model in eval mode, by the auto class that has its family, matrices normal with this standard deviation."""
    torch.manual_seed(seed)
    auto: Any = AutoModelForCausalLM if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else None
    auto = auto or AutoModelForImageTextToText
    model = auto.from_config(config, attn_implementation=attention).eval()
    return random_weights(model, spread)


@torch.no_grad()
def random_weights(model: nn.Module, spread: float = 0.1) -> nn.Module:
    """The model with matrices from a normal distribution, and so that positions leave a trace."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, spread)
        elif name.endswith(KEY_SCALE):
            parameter.fill_(1.0)
    return model


def _path_to_text(config: PretrainedConfig, declared: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The dictionaries from a whole configuration down to that of its language model."""
    yield declared
    text = config.get_text_config()
    for name in ("text_config", "decoder", "generator", "llm_config", "language_config"):
        part = getattr(config, name, None)
        if part is not None and part is text and part is not config and isinstance(declared.get(name), dict):
            yield from _path_to_text(part, declared[name])


def _shrink_towers(config: PretrainedConfig, declared: dict[str, Any]) -> None:
    text = config.get_text_config()
    for name, value in declared.items():
        part = getattr(config, name, None) if isinstance(value, dict) else None
        if isinstance(part, PretrainedConfig) and part is not text:
            for key in [key for key in value if type(value[key]) is int]:
                if re.fullmatch(LAYER_COUNTS, key):
                    _keep_layers(value, key, 2)
                elif re.fullmatch(OF_TOWERS, key):
                    value[key] = WIDTH
            _shrink_towers(part, value)


def _shrink(declared: dict[str, Any]) -> None:
    kept = _layers(declared)
    if kept is not None:
        key, indices = kept
        _only_layers(declared, key, indices)
    heads = next((v for k, v in declared.items() if re.fullmatch(HEAD_COUNTS, k) and isinstance(v, int)), None)
    for key, value in list(declared.items()):
        declared[key] = _smaller(key, UNSET.get(key) if value is None else value, heads)
    _small_rope(declared)


def _smaller(key: str, value: Any, heads: int | None) -> Any:
    if isinstance(value, list) and value and all(type(v) is int for v in value):
        return [_smaller(key, one, heads) for one in value]
    if type(value) is not int or value == 0:
        return value
    if TOKEN.search(key):
        return value if value < VOCABULARY else TEXT_IDS[1] + value % (VOCABULARY - TEXT_IDS[1])
    if key == "linear_num_value_heads":
        return HEADS
    if re.fullmatch(KEY_HEADS, key):
        return 1 if value == 1 else HEADS if heads in (None, value) else HEADS // 2
    if re.fullmatch(HEAD_COUNTS, key):
        return HEADS
    return next((small for names, small in SMALL if re.fullmatch(names, key)), value)


def _layers(declared: dict[str, Any]) -> tuple[str, list[int]] | None:
    """The field that counts layers, and which are kept: the first of each kind, two at least."""
    key = next((k for k, v in declared.items() if re.fullmatch(LAYER_COUNTS, k) and type(v) is int), None)
    if key is None:
        return None
    count = declared[key]
    lists = [v for v in declared.values() if isinstance(v, list) and len(v) == count > 1]
    kinds = [tuple(map(str, kind)) for kind in zip(*lists, strict=True)] or [()] * count
    first = sorted({kinds.index(kind) for kind in kinds})
    periods = [v for k, v in declared.items() if k.endswith("_period") and type(v) is int]
    wanted = max(2, *periods, 0)
    indices = first if len(first) >= wanted else list(range(min(wanted, count)))
    if declared.get("num_kv_shared_layers"):
        declared["num_kv_shared_layers"] = len(indices)
        indices = indices * 2
    return key, indices


def _only_layers(declared: dict[str, Any], key: str, indices: list[int]) -> None:
    count = declared[key]
    for name, value in declared.items():
        if isinstance(value, list) and len(value) == count:
            declared[name] = [value[i] for i in indices]
        elif isinstance(value, list) and re.search(r"(_idxs|_layers|_indexes|_layer_ids)$", name):
            declared[name] = [new for new, old in enumerate(indices) if old in value] or value[:0]
    if isinstance(overrides := declared.get("per_layer_config"), dict):
        by_index = {int(i): one for i, one in overrides.items()}
        declared["per_layer_config"] = {
            new: {k: _other(k, v, declared.get(k)) for k, v in by_index[old].items()}
            for new, old in enumerate(indices)
            if old in by_index
        }
    declared[key] = len(indices)


def _other(key: str, value: Any, elsewhere: Any) -> Any:
    """A layer's own value made small: twice that of the other layers, where it was not theirs."""
    small = _smaller(key, value, None)
    same = type(value) is int and value != elsewhere and small == _smaller(key, elsewhere, None)
    return 2 * small if same else small


def _keep_layers(declared: dict[str, Any], key: str, count: int) -> None:
    if declared[key] > count:
        _only_layers(declared, key, list(range(count)))


def _even_share(share: float) -> float:
    """A share of a head's channels that leaves it eight of them, or another even number."""
    return min(1.0, max(8, 2 * round(share * HEAD_DIM / 2)) / HEAD_DIM)


def _small_rope(declared: dict[str, Any]) -> None:
    if declared.get("partial_rotary_factor"):
        declared["partial_rotary_factor"] = _even_share(declared["partial_rotary_factor"])
    rope = declared.get("rope_parameters")
    if not isinstance(rope, dict):
        return
    for one in [v for v in rope.values() if isinstance(v, dict)] or [rope]:
        if one.get("partial_rotary_factor") and one.get("rope_type") != "proportional":
            one["partial_rotary_factor"] = _even_share(one["partial_rotary_factor"])
            if declared.get("qk_rope_head_dim") and one is rope:
                declared["qk_rope_head_dim"] = int(HEAD_DIM * one["partial_rotary_factor"])
        if one.get("original_max_position_embeddings"):
            one["original_max_position_embeddings"] = TRAINED
        dim = int((declared.get("qk_rope_head_dim") or HEAD_DIM) * (one.get("partial_rotary_factor") or 1.0))
        for name in ("short_factor", "long_factor"):
            if isinstance(one.get(name), list):
                one[name] = one[name][: dim // 2]
        if sections := one.get("mrope_section"):
            share = [max(1, round(s * dim / 2 / sum(sections))) for s in sections]
            one["mrope_section"] = [*share[:-1], dim // 2 - sum(share[:-1])]


def _section_positions(config: PretrainedConfig, text: dict[str, Any]) -> None:
    """Sections of channels for time, height and width, where the family's code has them and its defaults do not."""
    name = type(config.get_text_config()).__module__.replace("configuration_", "modeling_")
    rope = text.get("rope_parameters")
    code = importlib.util.find_spec(name)  # some families are configurations alone, of another family's code
    if isinstance(rope, dict) and code and code.origin and "mrope_section" in Path(code.origin).read_text():
        for one in [v for v in rope.values() if isinstance(v, dict)] or [rope]:
            pairs = int(HEAD_DIM * (one.get("partial_rotary_factor") or 1.0)) // 2
            one.setdefault("mrope_section", [pairs // 3, pairs // 3, pairs - 2 * (pairs // 3)])


def _fill(declared: Any, path: list[str], value: Any) -> None:
    """Set a value at a path; * is every entry that has what follows."""
    first, *rest = path
    if first == "*":
        for part in declared.values():
            _fill(part, rest, value)
    elif rest:
        _fill(declared[first], rest, value)
    else:
        declared[first] = value
