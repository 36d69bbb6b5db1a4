"""Attention that sees only a window: which layers, how far, and how to let them see everything."""

from transformers import PretrainedConfig

from harness.models.checkpoint.families import WINDOW_FIELDS
from harness.models.checkpoint.geometry import text_config

EVERYTHING = 2**30  # tokens; larger than any context, and still a 32-bit integer for attention kernels


def set_window(config: PretrainedConfig, tokens: int | None) -> None:
    """Let windowed layers of a configuration see `tokens` back; None: everything. Layers keep their type."""
    text = text_config(config)
    for field in WINDOW_FIELDS.values():
        if getattr(text, field, None) is not None:
            setattr(text, field, EVERYTHING if tokens is None else tokens)


def windowed_layers(config: PretrainedConfig, ctx: int) -> list[str]:
    """One sentence for each kind of layer whose attention is shorter than a window of `ctx` tokens."""
    text = text_config(config)
    kinds = getattr(text, "layer_types", None) or ["sliding_attention"] * text.num_hidden_layers
    return [
        f"{kinds.count(kind)} of {len(kinds)} layers see only {tokens} tokens, fewer than ctx={ctx}; "
        "model.sliding_window=null lifts it."
        for kind, field in WINDOW_FIELDS.items()
        if kind in kinds and (tokens := getattr(text, field, None)) is not None and 0 < tokens < ctx
    ]


def sees_everything(config: PretrainedConfig) -> bool:
    """Whether windows were lifted, so that even local layers see the whole context."""
    return getattr(text_config(config), WINDOW_FIELDS["sliding_attention"], None) == EVERYTHING
