"""Tiny GGUF files of a Llama, float32 or in four bits, with a tokenizer of single characters."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tests.tiny import VOCABULARY

Array = NDArray[np.float32]
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def four_bits(values: Array) -> tuple[Any, Array]:
    """A matrix in blocks of Q4_0: its bytes, and the numbers that they stand for."""
    import gguf

    kind = gguf.GGMLQuantizationType.Q4_0
    packed = gguf.quants.quantize(values, kind)
    return packed, gguf.quants.dequantize(packed, kind)


def save_gguf(file: Path, model: nn.Module, *, quantised: bool = False) -> None:
    """Write a Llama; `quantised`: the matrices of its layers in Q4_0, and their numbers into the model itself."""
    import gguf

    config: Any = model.config
    writer = gguf.GGUFWriter(file, arch="llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer)
    heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        kind = None
        if quantised and ".layers." in name and values.ndim == 2:
            rows = _interleaved(values, name, heads)
            values, numbers = four_bits(rows)
            kind = gguf.GGMLQuantizationType.Q4_0
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(_halves(numbers, name, heads)))
        elif values.ndim == 2:
            values = _interleaved(values, name, heads)
        writer.add_tensor(_name(name), np.ascontiguousarray(values), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if ".layers." not in stem:
        return f"{NAMES[stem]}.{kind}"
    _, _, number, rest = stem.split(".", 3)
    return f"blk.{number}.{NAMES[rest]}.{kind}"


def _heads(name: str, heads: dict[str, int]) -> int | None:
    return next((count for key, count in heads.items() if f"self_attn.{key}_proj" in name), None)


def _interleaved(values: Array, name: str, heads: dict[str, int]) -> Array:
    """Rows of queries and keys as llama.cpp rotates them: pairs beside each other, where transformers has halves."""
    count = _heads(name, heads)
    return (
        values if count is None else values.reshape(count, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
    )


def _halves(values: Array, name: str, heads: dict[str, int]) -> Array:
    """The way back."""
    count = _heads(name, heads)
    return (
        values if count is None else values.reshape(count, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
    )


def _add_tokenizer(writer: Any) -> None:
    """Characters of BPE and one merge; what is over are words that no text holds."""
    characters = ["<unk>", "<s>", "</s>", "w", "Ġ", *"0123456789", "w0"]
    words = [*characters, *(f"<{i}>" for i in range(len(characters), VOCABULARY))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3 if word.startswith("<") else 1 for word in words])
    writer.add_token_merges(["w 0"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
