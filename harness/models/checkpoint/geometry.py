"""The rotary geometry of a checkpoint, read from its own configuration."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from transformers import PretrainedConfig

from harness.errors import UserError
from harness.methods.base import RopeGeometry
from harness.models.checkpoint.families import (
    ALIBI,
    DUAL_CHUNK,
    DUAL_CHUNK_LENGTHS,
    FULL_ATTENTION,
    LATENT_ROTARY_DIM,
    LAYER_THETAS,
    LOCAL_TYPES,
    PROPORTIONAL,
    TABLE_ROTARY_DIM,
    TEXT_PART,
    TRAINED_LENGTH,
    UNSCALED_TYPES,
    first_set,
)
from harness.models.checkpoint.layers import layer_config


def geometry(config: PretrainedConfig, original_max_position_embeddings: int | None = None) -> RopeGeometry:
    """The geometry of a transformers configuration: of its full-attention layers where layer types differ.

    `original_max_position_embeddings` (tokens) overrides what the checkpoint says it was trained on.
    Raises UserError where the configuration has no rotary embedding.
    """
    text = text_config(config)
    main = layer_geometry(text, main_layer_type(text), original_max_position_embeddings)
    bases = [base for base, kinds in _types_by_base(text).items() if not kinds <= {*LOCAL_TYPES}]
    return replace(main, rope_theta=bases[0]) if bases else main


def layer_geometry(text: PretrainedConfig, layer_type: str | None, trained: int | None = None) -> RopeGeometry:
    """The geometry of one layer type (None: of all layers) of a text configuration."""
    if not has_rope(text):
        raise no_rotary(text)
    check_one_width(text)
    rotary_dim, resting = _channels(text, layer_type)
    return RopeGeometry(
        rotary_dim=rotary_dim,
        rope_theta=float(rope_parameters(text, layer_type).get("rope_theta") or 10_000.0),
        original_max_position_embeddings=trained or trained_length(text),
        resting=resting,
        dual_chunk=dual_chunk(text),
    )


def dual_chunk(text: PretrainedConfig) -> tuple[int, int] | None:
    """The chunk and local window (tokens) that a checkpoint declares for dual chunk attention."""
    declared = getattr(text, DUAL_CHUNK, None)
    if not declared:
        return None
    chunk, local = (int(declared.get(name, usual)) for name, usual in DUAL_CHUNK_LENGTHS.items())
    return chunk, local


def check_one_width(text: PretrainedConfig) -> None:
    """Raise UserError for a model made of parts that have widths of their own, and none together (Blt)."""
    if not hasattr(text, "hidden_size"):
        raise UserError(f"{text.model_type} is made of parts with widths of their own: it cannot run here.")


def no_rotary(text: PretrainedConfig) -> UserError:
    """The error for a method that needs a rotary embedding where there is none."""
    return UserError(f"{text.model_type} has no rotary embedding: only method=none or method=native can run on it.")


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """The part of a configuration that describes the language model."""
    text = config.get_text_config()
    return text if hasattr(text, "hidden_size") else getattr(text, TEXT_PART, text)


def has_rope(text: PretrainedConfig) -> bool:
    """Whether the configuration asks for a rotary embedding."""
    return not getattr(text, ALIBI, False) and (_has_tables(text) or bool(_declared(text)))


def layer_types(text: PretrainedConfig) -> list[str | None]:
    """The layer types that have frequencies of their own; [None] where all layers share one set."""
    declared = _declared(text)
    nested = [key for key, value in declared.items() if isinstance(value, Mapping)]
    return list(nested) or [None]


def main_layer_type(text: PretrainedConfig) -> str | None:
    """The layer type that sees the whole window; None where all layers share one set."""
    types = layer_types(text)
    return FULL_ATTENTION if FULL_ATTENTION in types else next((t for t in types if t not in LOCAL_TYPES), types[0])


def is_local(text: PretrainedConfig, layer_type: str | None) -> bool:
    """Whether frequencies (of a layer type; None: those with the configuration's base) are of local layers alone.

    A set that local layers share with others is not: scaling it scales both, as in models with one set for all.
    """
    if layer_type is not None:
        return layer_type in LOCAL_TYPES and layer_type != main_layer_type(text)
    local = {base: kinds <= {*LOCAL_TYPES} for base, kinds in _types_by_base(text).items()}
    return local.get(float(rope_parameters(text, None).get("rope_theta") or 0), False) and not all(local.values())


def _types_by_base(text: PretrainedConfig) -> dict[float, set[str]]:
    """Which layer types rotate by which base, where each layer has one of its own (0: it does not rotate)."""
    found: dict[float, set[str]] = {}
    bases, kinds = getattr(text, LAYER_THETAS, None) or (), getattr(text, "layer_types", None) or ()
    for base, kind in zip(bases, kinds, strict=False):  # most models have layer types and one base
        if base:
            found.setdefault(float(base), set()).add(kind)
    return found


def declares_scaling(text: PretrainedConfig) -> bool:
    """Whether the checkpoint itself asks for scaled frequencies in any layer."""
    return any(_is_scaled(rope_parameters(text, kind)) for kind in layer_types(text))


def _is_scaled(declared: Mapping[str, Any]) -> bool:
    kind = declared.get("rope_type", "default")
    return kind not in UNSCALED_TYPES or (kind == PROPORTIONAL and (declared.get("factor") or 1.0) != 1.0)


def rope_parameters(text: PretrainedConfig, layer_type: str | None) -> dict[str, Any]:
    """The rope parameters that a text configuration declares for a layer type (None: for all layers)."""
    declared = _declared(text)
    return declared if layer_type is None else dict(declared[layer_type])


def trained_length(text: PretrainedConfig) -> int:
    """Tokens of a training window: original_max_position_embeddings if declared, else max_position_embeddings."""
    declared = [rope_parameters(text, main_layer_type(text)), getattr(text, DUAL_CHUNK, None) or {}]
    originals = [length for place in declared if (length := place.get("original_max_position_embeddings"))]
    length = originals[0] if originals else first_set(text, TRAINED_LENGTH)
    if not length:
        raise UserError(
            f"{text.model_type} does not say what length it was trained on: set model.original_max_position_embeddings."
        )
    return int(length)


def _declared(text: PretrainedConfig) -> dict[str, Any]:
    return dict(getattr(text, "rope_parameters", None) or {})


def _has_tables(text: PretrainedConfig) -> bool:
    return hasattr(text, TABLE_ROTARY_DIM) and not _declared(text)


def _channels(text: PretrainedConfig, layer_type: str | None) -> tuple[int, int]:
    """How many channels of a head rotate, and how many rest beside them that count in the exponent."""
    if _has_tables(text):
        return int(getattr(text, TABLE_ROTARY_DIM) or text.hidden_size), 0
    layer, declared = layer_config(text, layer_type), rope_parameters(text, layer_type)
    share = declared.get("partial_rotary_factor") or 1.0
    latent = getattr(layer, LATENT_ROTARY_DIM, None)
    if latent is not None:
        return int(latent), 0
    head_dim = int(getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads)
    if declared.get("rope_type") == PROPORTIONAL:
        rotating = 2 * int(share * head_dim // 2)
        return rotating, head_dim - rotating
    return int(head_dim * share), 0
