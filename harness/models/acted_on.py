"""Which of a model's layers a method acts on: those whose context grows, or the kind that is asked for."""

from transformers import PretrainedConfig

from harness.errors import UserError
from harness.methods.modifiers.layers import Layers, acts_on
from harness.models.checkpoint.geometry import is_local, text_config
from harness.models.checkpoint.sliding_window import sees_everything
from harness.models.parts import CausalLM
from harness.models.rotary.find import rotaries


def is_acted_on(config: PretrainedConfig, layer_type: str | None, chosen: Layers | None) -> bool:
    """Whether a method acts on the layers that rotate by these frequencies (of a layer type; None: of them all)."""
    return acts_on(is_local(config, layer_type), sees_everything(config), chosen)


def check_kinds(model: CausalLM, chosen: Layers | None) -> None:
    """Raise UserError where a kind is asked for and the model's layers share one set of frequencies."""
    if chosen is None:
        return
    kinds = {is_local(rotary.config, kind) for rotary in rotaries(model) for kind in rotary.layer_types}
    if kinds != {True, False}:
        raise UserError(
            f"method.layers: layers of {text_config(model.config).model_type} do not rotate by kinds of their own: it "
            f"must be null, got {chosen}."
        )
