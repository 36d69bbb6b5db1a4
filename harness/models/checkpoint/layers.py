"""What may differ from layer to layer of a configuration, read from the layer.

Heterogeneous configurations (`per_layer_config`: Gemma 4, Step 3.7) refuse to say for the whole model what holds for
single layers.
"""

from typing import Any

from transformers import PretrainedConfig


def layer_configs(text: PretrainedConfig) -> list[PretrainedConfig]:
    """The configuration of each decoder layer, in order: the same object throughout where layers do not differ."""
    if not is_heterogeneous(text):
        return [text] * int(getattr(text, "num_hidden_layers", None) or 1)
    return list(text.per_layer_config)


def layer_config(text: PretrainedConfig, layer_type: str | None) -> PretrainedConfig:
    """The configuration of the first layer of a type; of the first layer where no layer is called so, or for None."""
    if not is_heterogeneous(text):
        return text
    kinds = getattr(text, "layer_types", None) or ()
    return layer_configs(text)[list(kinds).index(layer_type) if layer_type in kinds else 0]


def is_heterogeneous(text: PretrainedConfig) -> bool:
    """Whether some fields differ from layer to layer, so that asking the whole configuration for them is an error."""
    return bool(getattr(text, "is_heterogeneous", False))


def per_layer(text: PretrainedConfig, name: str, default: Any = None) -> list[Any]:
    """A field's value in each decoder layer; `default` where a layer has none."""
    return [getattr(layer, name, default) for layer in layer_configs(text)]


def set_per_layer(text: PretrainedConfig, name: str, value: Any) -> None:
    """Set a field for the whole configuration, and for each layer that has a value of its own which is not null."""
    if is_heterogeneous(text):
        own = text.to_dict()["per_layer_config"]
        for fields in own.values():
            if fields.get(name) is not None:
                fields[name] = value
        text.per_layer_config = own
    setattr(text, name, value)
