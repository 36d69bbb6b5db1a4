"""Attention that sees only a window: which layers, how far, and how to let them see everything."""

from transformers import PretrainedConfig

from harness.errors import UserError
from harness.models.checkpoint.families import ENCODING, FULL_ATTENTION, REACH, WINDOW_FIELDS
from harness.models.checkpoint.geometry import text_config
from harness.models.checkpoint.layers import layer_configs, per_layer, set_per_layer

EVERYTHING = 2**30  # tokens; larger than any context, and still a 32-bit integer for attention kernels


def set_window(config: PretrainedConfig, tokens: int | None) -> None:
    """Let windowed layers of a configuration see `tokens` back; None: everything. Layers keep their type.

    Raises UserError where it would not act: no layer sees only a window, or something else limits what layers see.
    """
    text = text_config(config)
    fields = [field for field in WINDOW_FIELDS.values() if any(n is not None for n in per_layer(text, field))]
    if tokens is None:
        _check_liftable(text)
    elif _takes_window(text):
        fields = fields or [WINDOW_FIELDS["sliding_attention"]]
    else:
        raise no_window(text, tokens)
    for field in fields:
        set_per_layer(text, field, EVERYTHING if tokens is None else tokens)


def no_window(text: PretrainedConfig, tokens: int) -> UserError:
    """The error for a window that no layer would see."""
    return UserError(
        f"model.sliding_window: {text.model_type} has no layers that see only a window: allowed are native and null, "
        f"got {tokens}."
    )


def _takes_window(text: PretrainedConfig) -> bool:
    """Whether layers would look at a window: their types say so, or they have none and a field for it."""
    kinds = getattr(text, "layer_types", None)
    if kinds:
        return any(kind in kinds and field in vars(text) for kind, field in WINDOW_FIELDS.items())
    return any(field in vars(text) for field in WINDOW_FIELDS.values())


def _check_liftable(text: PretrainedConfig) -> None:
    others = [name for name in limits(text) if name not in WINDOW_FIELDS.values()]
    if others or hasattr(text, ENCODING):
        what = others[0] if others else ENCODING
        raise UserError(
            f"model.sliding_window: what {text.model_type} sees is set by {what}, which null does not lift: allowed is "
            "native, got null."
        )


def limits(text: PretrainedConfig) -> dict[str, int]:
    """Fields by which attention sees less than everything before it, in tokens or keys; {} where all layers see all."""
    if set(getattr(text, "layer_types", None) or ()) == {FULL_ATTENTION}:
        return {}
    fields = [(name, value) for layer in layer_configs(text) for name, value in vars(layer).items()]
    found: dict[str, int] = {}
    for name, value in fields:
        if REACH.search(name) and type(value) is int and 0 < value < EVERYTHING:
            found[name] = max(value, found.get(name, 0))
    return found


def windowed_layers(config: PretrainedConfig, ctx: int) -> list[str]:
    """One sentence for each kind of layer whose attention is shorter than a window of `ctx` tokens."""
    text = text_config(config)
    layers = layer_configs(text)
    kinds = getattr(text, "layer_types", None) or ["sliding_attention"] * len(layers)
    found: list[str] = []
    for kind, field in WINDOW_FIELDS.items():
        windows = [getattr(layer, field, None) for layer, of in zip(layers, kinds, strict=True) if of == kind]
        short = [tokens for tokens in windows if tokens is not None and 0 < tokens < ctx]
        found += [
            f"{short.count(tokens)} of {len(kinds)} layers see only {tokens} tokens, fewer than ctx={ctx}; "
            "model.sliding_window=null lifts it."
            for tokens in sorted(set(short))
        ]
    return found


def sees_everything(config: PretrainedConfig) -> bool:
    """Whether windows were lifted, so that even local layers see the whole context."""
    return EVERYTHING in per_layer(text_config(config), WINDOW_FIELDS["sliding_attention"])
