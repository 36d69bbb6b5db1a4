"""The shape of a model, read from its modules without weights: what its costs depend on."""

import copy
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from harness.models.checkpoint.families import (
    EXPERT_WEIGHTS,
    FULL_ATTENTION,
    LATENT_PLAIN_DIM,
    LATENT_ROTARY_DIM,
    LATENT_VALUE_DIM,
    NUM_EXPERTS,
    WINDOW_FIELDS,
    first_set,
)
from harness.models.checkpoint.header import Header
from harness.models.checkpoint.sliding_window import set_window
from harness.models.parts import CausalLM, widths


class Shape(NamedTuple):
    """A model as its costs see it."""

    matrix_parameters: float  # passed by every token; embedding and head left out
    weight_bytes: int
    hidden: int
    inner: int  # of the MLP
    vocabulary: int
    heads: int
    key_dim: int  # of a head
    value_dim: int
    attention_windows: tuple[int | None, ...]  # of every layer, tokens; None: full attention


def shape(header: Header, dtype: str) -> Shape:
    """The shape of the model that `header` describes, its weights held in `dtype`."""
    known = copy.deepcopy(header.config)
    if not isinstance(header.spec.sliding_window, str):
        set_window(known, header.spec.sliding_window)
    with torch.device("meta"):
        model: CausalLM = AutoModelForCausalLM.from_config(known, trust_remote_code=header.spec.trust_remote_code)
    config, width = model.config.get_text_config(), widths(model)
    looked_up = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    ends = {id(m.weight) for m in (*looked_up, model.get_output_embeddings()) if m is not None}
    matrices = [(name, p) for name, p in model.named_parameters() if p.ndim > 1 and id(p) not in ends]
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    key_dim = getattr(config, LATENT_PLAIN_DIM, 0) + getattr(config, LATENT_ROTARY_DIM, 0) or head_dim
    return Shape(
        matrix_parameters=sum(p.numel() * _share(name, config) for name, p in matrices),
        weight_bytes=sum(p.numel() for p in model.parameters()) * getattr(torch, dtype).itemsize,
        hidden=width.hidden,
        inner=width.inner,
        vocabulary=width.vocabulary,
        heads=config.num_attention_heads,
        key_dim=key_dim,
        value_dim=getattr(config, LATENT_VALUE_DIM, None) or head_dim,
        attention_windows=_attention_windows(config),
    )


def _share(name: str, config: PretrainedConfig) -> float:
    """Of the tokens that pass a matrix: all, or those that a router sends to an expert."""
    experts = first_set(config, NUM_EXPERTS)
    chosen = getattr(config, "num_experts_per_tok", None)
    return chosen / experts if EXPERT_WEIGHTS.search(name) and experts and chosen else 1.0


def _attention_windows(config: PretrainedConfig) -> tuple[int | None, ...]:
    window = getattr(config, WINDOW_FIELDS["sliding_attention"], None)
    kinds = getattr(config, "layer_types", None) or ["all"] * config.num_hidden_layers
    return tuple(None if kind == FULL_ATTENTION else window for kind in kinds)
