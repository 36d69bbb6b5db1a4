"""The shape of a model, read from its modules without weights: what its costs depend on."""

import copy
import re
from typing import NamedTuple

import torch
from torch import nn
from transformers import PretrainedConfig

from harness.models.checkpoint.classes import auto_class
from harness.models.checkpoint.families import (
    EXPERT_WEIGHTS,
    EXPERTS_PER_TOKEN,
    FULL_ATTENTION,
    LATENT_PLAIN_DIM,
    LATENT_ROTARY_DIM,
    LATENT_VALUE_DIM,
    NUM_EXPERTS,
    OTHER_SENSES,
    WINDOW_FIELDS,
    first_set,
)
from harness.models.checkpoint.geometry import text_config
from harness.models.checkpoint.header import Header
from harness.models.checkpoint.layers import layer_configs, per_layer
from harness.models.checkpoint.sliding_window import set_window
from harness.models.parts import CausalLM, body_of, decoder_of, widths


class Shape(NamedTuple):
    """A model as its costs see it."""

    matrix_parameters: float  # passed by every token; embedding and head left out
    weight_bytes: int
    hidden: int
    inner: int  # of the MLP
    vocabulary: int
    attention_widths: tuple[int, ...]  # of every layer: heads x (key + value dimension)
    attention_windows: tuple[int | None, ...]  # of every layer, tokens; None: full attention


def shape(header: Header, dtype: str) -> Shape:
    """The shape of the model that `header` describes, its weights held in `dtype`."""
    known = copy.deepcopy(header.config)
    if not isinstance(header.spec.sliding_window, str):
        set_window(known, header.spec.sliding_window)
    with torch.device("meta"):
        model: CausalLM = auto_class(known).from_config(known, trust_remote_code=header.spec.trust_remote_code)
    config, width = text_config(model.config), widths(model)
    looked_up = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    ends = {id(m.weight) for m in (*looked_up, model.get_output_embeddings()) if m is not None}
    spare = ends | _beside_text(model)
    matrices = [
        (name, p) for name, p in model.named_parameters() if p.ndim > 1 and id(p) not in spare and _is_text(name)
    ]
    return Shape(
        matrix_parameters=sum(p.numel() * _share(name, config) for name, p in matrices),
        weight_bytes=sum(p.numel() for p in model.parameters()) * getattr(torch, dtype).itemsize,
        hidden=width.hidden,
        inner=width.inner,
        vocabulary=width.vocabulary,
        attention_widths=tuple(_attention_width(layer) for layer in layer_configs(config)),
        attention_windows=_attention_windows(config),
    )


def _beside_text(model: CausalLM) -> set[int]:
    """By id, the parameters of a body that lie beside its part for text, as what projects pictures into it."""
    try:
        body, text = body_of(model), decoder_of(model)
    except LookupError:
        return set()
    return {id(p) for p in body.parameters()} - {id(p) for p in text.parameters()}


def _is_text(name: str) -> bool:
    """Whether text passes through a weight: not through those of towers for other senses."""
    return not any(sense in name for sense in OTHER_SENSES)


def _attention_width(layer: PretrainedConfig) -> int:
    head_dim = getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads
    key_dim = (getattr(layer, LATENT_PLAIN_DIM, 0) or 0) + (getattr(layer, LATENT_ROTARY_DIM, 0) or 0) or head_dim
    value_dim = getattr(layer, LATENT_VALUE_DIM, None) or head_dim
    return int(layer.num_attention_heads * (key_dim + value_dim))


def _share(name: str, config: PretrainedConfig) -> float:
    """Of the tokens that pass a matrix: all, or those that a router sends to an expert."""
    if not EXPERT_WEIGHTS.search(name):
        return 1.0
    index = re.search(r"\.(\d+)\.", name)  # of the layer
    layers = layer_configs(config)
    layer = layers[int(index[1])] if index and int(index[1]) < len(layers) else layers[0]
    experts, chosen = first_set(layer, NUM_EXPERTS), first_set(layer, EXPERTS_PER_TOKEN)
    return chosen / experts if experts and chosen else 1.0


def _attention_windows(config: PretrainedConfig) -> tuple[int | None, ...]:
    windows = per_layer(config, WINDOW_FIELDS["sliding_attention"])
    kinds = getattr(config, "layer_types", None) or ["all"] * len(windows)
    return tuple(None if kind == FULL_ATTENTION else window for kind, window in zip(kinds, windows, strict=True))
