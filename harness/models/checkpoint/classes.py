"""Which class of models a configuration is loaded as."""

from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

KINDS: tuple[tuple[Any, Any], ...] = (
    (AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING),
    (AutoModelForImageTextToText, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING),
)


def architectures(config: PretrainedConfig) -> list[str]:
    """The classes that a checkpoint says it was saved from; [] where it says nothing."""
    named = getattr(config, "architectures", None) or []
    return [named] if isinstance(named, str) else [str(name) for name in named]


def auto_class(config: PretrainedConfig) -> Any:
    """The auto class that makes the model which the checkpoint was saved from; else the first that knows its family.

    Models that see as well are made whole, since their text path is part of them. A family that transformers does not
    know, of a checkpoint with code of its own, is made as a causal language model.
    """
    known = [(auto, mapping[type(config)]) for auto, mapping in KINDS if type(config) in mapping]
    saved = [auto for auto, made in known if getattr(made, "__name__", None) in architectures(config)]
    return (saved or [auto for auto, _ in known] or [AutoModelForCausalLM])[0]


def known_classes(config: PretrainedConfig) -> list[str]:
    """The classes of transformers that score text, alone or beside pictures, for this kind of configuration."""
    return [getattr(mapping[type(config)], "__name__", "") for _, mapping in KINDS if type(config) in mapping]
