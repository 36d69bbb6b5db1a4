"""Models of a few families with three layers, and tokens for them."""

import torch
import transformers

VOCABULARY = 211
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE),
    "qwen3": lambda: transformers.Qwen3Config(**SHAPE, head_dim=8),
    "mistral, windowed": lambda: transformers.MistralConfig(**SHAPE, sliding_window=20),
    "gemma3, local and global": lambda: transformers.Gemma3TextConfig(
        **SHAPE, head_dim=8, sliding_window=20, layer_types=["sliding_attention", "sliding_attention", "full_attention"]
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**{k: v for k, v in SHAPE.items() if k != "num_key_value_heads"}),
    "granite, scaled logits": lambda: transformers.GraniteConfig(**SHAPE, logits_scaling=3.0),
    "cohere, scaled logits": lambda: transformers.CohereConfig(**SHAPE),
}
# The parts of the llama, as accelerate maps them to devices.
PLACES = [
    "model.embed_tokens",
    "model.rotary_emb",
    *(f"model.layers.{i}" for i in range(3)),
    "model.norm",
    "lm_head",
]  # of the llama, as accelerate maps them


def tokens(rows, length, seed=1):
    """Random token ids (rows, length)."""
    return torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))
