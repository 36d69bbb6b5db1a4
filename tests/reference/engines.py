"""Rotations as other engines compute them, in float64, written from their sources; nothing of the package is used.

vLLM 0.33.0: model_executor/layers/rotary_embedding (get_rope, base.py, yarn_scaling_rope.py, llama3_rope.py,
linear_scaling_rope.py, phi3_long_rope_scaled_rope.py). SGLang 0.5.23: srt/layers/rotary_embedding (factory.py,
yarn.py, rope_variant.py). llama.cpp of llama-cpp-python 0.3.36: common/arg.cpp, src/llama-context.cpp,
src/llama-model.cpp, ggml/src/ggml.c (ggml_rope_yarn_corr_dims), ggml/src/ggml-cpu/ops.cpp (rope_yarn).
Each gives inv_freq (rotary_dim // 2,) and what cos and sin are multiplied by.
"""

import math

import numpy as np


def bases(theta, dims):
    return theta ** (-np.arange(0, dims, 2) / dims)


def corner(rotations, dims, theta, original):
    return dims * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))


def yarn_frequencies(given, dims, rounded):
    theta, factor, original = given["rope_theta"], given["factor"], given["original_max_position_embeddings"]
    low = corner(given.get("beta_fast", 32), dims, theta, original)
    high = corner(given.get("beta_slow", 1), dims, theta, original)
    if rounded:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    high = high + 0.001 if low == high else high
    interpolated = np.clip((np.arange(dims // 2) - low) / (high - low), 0, 1)
    plain = bases(theta, dims)
    return plain / factor * interpolated + plain * (1 - interpolated)


def mscale(factor, multiplier=1.0):
    return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1


def llama3_frequencies(given, dims):
    plain, factor, original = (
        bases(given["rope_theta"], dims),
        given["factor"],
        given["original_max_position_embeddings"],
    )
    low, high = given["low_freq_factor"], given["high_freq_factor"]
    length = 2 * np.pi / plain
    smooth = (original / length - low) / (high - low)
    between = (1 - smooth) * plain / factor + smooth * plain
    return np.where(length < original / high, plain, np.where(length > original / low, plain / factor, between))


def shared(given, dims, max_model_len):
    """Types that vLLM and SGLang compute alike; None for the others."""
    kind = given["rope_type"]
    if kind == "default":
        return bases(given["rope_theta"], dims), 1.0
    if kind == "linear":
        assert isinstance(given["factor"], float)  # vLLM takes a whole number for a list
        return bases(given["rope_theta"], dims) / given["factor"], 1.0
    if kind == "llama3":
        return llama3_frequencies(given, dims), 1.0
    if kind == "longrope":
        original = given["original_max_position_embeddings"]
        long = max_model_len > original
        factors = np.array(given["long_factor" if long else "short_factor"])
        return bases(given["rope_theta"], dims) / factors, given["long_mscale" if long else "short_mscale"]
    return None


def vllm(given, dims, max_model_len):
    """get_rope of rope parameters, served up to max_model_len tokens."""
    if given["rope_type"] != "yarn":
        return shared(given, dims, max_model_len)
    scaling = mscale(given["factor"])
    if given.get("attention_factor") is not None:
        scaling = given["attention_factor"]
    elif given.get("mscale") and given.get("mscale_all_dim"):
        scaling = mscale(given["factor"], given["mscale"]) / mscale(given["factor"], given["mscale_all_dim"])
    assert max_model_len <= given["original_max_position_embeddings"] * given["factor"]  # its table ends there
    return yarn_frequencies(given, dims, given.get("truncate", True)), scaling


def vllm_longest(given, max_position_embeddings):
    """The longest --max-model-len that is not refused."""
    multiplied = given["rope_type"] not in ("longrope", "llama3", "yarn")
    return max_position_embeddings * (given.get("factor", 1.0) if multiplied else 1.0)


def sglang(given, dims, max_model_len):
    """get_rope of rope parameters, served up to max_model_len tokens."""
    if given["rope_type"] != "yarn":
        return shared(given, dims, max_model_len)
    scaling = mscale(given["factor"])
    if given.get("mscale") is not None and given.get("mscale_all_dim") is not None:
        scaling = mscale(given["factor"], given["mscale"]) / mscale(given["factor"], given["mscale_all_dim"])
    return yarn_frequencies(given, dims, given.get("truncate", True)), scaling * given.get("attn_factor", 1.0)


def sglang_longest(given, max_position_embeddings):
    """The longest --context-length that is not refused."""
    plain = "original_max_position_embeddings" in given or given["rope_type"] == "llama3"
    return max_position_embeddings * (1 if plain else given.get("factor", 1))


def llama_cpp(keys, factors, dims, flags=()):
    """A context over a GGUF file (keys without the architecture, tensor of factors or None) under flags."""
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    overridden = {}
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        if flag == "--override-kv":
            name, _, typed = value.partition("=")
            overridden[name.partition(".")[2]] = float(typed.partition(":")[2])
    keys = {**keys, **overridden}
    theta = float(given.get("--rope-freq-base", keys.get("rope.freq_base", 10_000.0)))
    kind = given.get("--rope-scaling", keys.get("rope.scaling.type", "linear"))
    factor = float(given.get("--rope-scale", keys.get("rope.scaling.factor", 1.0)))
    factor = 1.0 if kind == "none" else factor
    plain = bases(theta, dims) / (np.ones(dims // 2) if factors is None else np.array(factors))
    beside = keys.get("rope.scaling.attn_factor", 1.0)
    if kind != "yarn":
        return plain / factor, beside
    original = float(given.get("--yarn-orig-ctx", keys.get("rope.scaling.original_context_length", 0)))
    betas = {
        "beta_fast": float(given.get("--yarn-beta-fast", 32)),
        "beta_slow": float(given.get("--yarn-beta-slow", 1)),
    }
    assert factors is None
    ramp = {"rope_theta": theta, "factor": factor, "original_max_position_embeddings": original, **betas}
    return yarn_frequencies(ramp, dims, rounded=True), beside * mscale(factor)
