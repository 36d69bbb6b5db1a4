"""Running methods that change attention: unrotated queries and keys, rotated anew in each region of the scores.

The rotary modules hand out rotations by 0, and an attention function registered with transformers rotates queries and
keys as the method's regions say (harness.models.attention.tiles). How a layer rotates is not known by family but
measured (harness.models.attention.layer_rotation); what the probe cannot explain is refused by name.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, is_grad_enabled, nn
from transformers import PretrainedConfig

from harness.errors import UserError
from harness.methods.attention.base import AttentionMethod
from harness.methods.attention.regions import Region, near
from harness.methods.base import RopeFrequencies
from harness.methods.modifiers.layers import Layers
from harness.models.acted_on import is_acted_on
from harness.models.attention.first_seen import first_seen
from harness.models.attention.layer_rotation import FoundRotation, Source, check_runs, layer_rotations
from harness.models.attention.options import check_options
from harness.models.attention.rotation import LayerRotation
from harness.models.attention.route import routed
from harness.models.attention.tiles import Part, attend, parts
from harness.models.checkpoint.families import NORMS_AFTER_ROTATION, SINKS, SOFTCAP
from harness.models.checkpoint.geometry import text_config
from harness.models.installed import Installed
from harness.models.parts import CausalLM
from harness.models.rotary.find import identity_rotation, rotaries


@dataclass(frozen=True)
class Layer:
    """How one layer rotates queries and keys, and whether the method's regions hold in it."""

    rotation: LayerRotation | None  # None: the layer has no positions
    plain: bool  # a kind of layer that the method does not act on


@dataclass
class RegionAttention:
    """The attention function of one method in the layers of one model; keeps the tables of the last length only."""

    method: AttentionMethod
    layers: Mapping[nn.Module, Layer]
    _length: int = 0
    _prepared: dict[Any, Any] = field(default_factory=dict)

    @torch.compiler.disable  # tables and tiles are planned in NumPy: a compiled layer calls this between its graphs
    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        first_seen: Tensor | None = None,
        *,
        scaling: float | None = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """Attention as transformers calls it: (batch, heads, length, ...) in, (batch, length, heads, ...) out."""
        _check(module, query, key, first_seen, options)
        output = attend(
            query,
            key,
            value,
            self._parts(self.layers[module], query, first_seen),
            query.shape[-1] ** -0.5 if scaling is None else scaling,
            sinks=options.get(SINKS),
            softcap=options.get(SOFTCAP),
        )
        return output.transpose(1, 2).contiguous(), None

    def _parts(self, layer: Layer, query: Tensor, first_seen: Tensor | None) -> list[Part]:
        hidden = None if first_seen is None else first_seen.flatten()
        made: list[Part] = self._once(
            query, layer, lambda length: parts(self._regions(layer, length), layer.rotation, query)
        )
        return made if hidden is None else [part.seeing_from(hidden.numpy()) for part in made]

    def _regions(self, layer: Layer, length: int) -> tuple[Region, ...]:
        return (near(length, length),) if layer.plain else self.method.regions(length)

    def _once(self, query: Tensor, what: Any, make: Callable[[int], Any]) -> Any:
        """What depends on the length, device and dtype of a call, made once for all layers that share it."""
        if query.shape[2] != self._length:
            self._length, self._prepared = query.shape[2], {}
        place = (what, query.device, query.dtype)
        if place not in self._prepared:
            self._prepared[place] = make(self._length)
        return self._prepared[place]


@contextmanager
def applied(
    model: CausalLM, method: AttentionMethod, length: int, trained: int | None = None, chosen: Layers | None = None
) -> Iterator[tuple[Installed, ...]]:
    """Until the block ends, the model attends as the method (parameters resolved) says.

    `trained` (tokens) overrides the trained length that the checkpoint declares. Frequencies are the unscaled ones;
    a multiplier of cosines and sines or a softmax scale that the checkpoint declares is kept, since its weights were
    trained with it. `chosen`: the kind of layer that the method acts on. The block is given what layers rotate by,
    once for each rotary module and layer type.
    Raises UserError, by name, for models whose attention cannot be reached or explained.
    """
    text = text_config(model.config)
    if text.model_type in NORMS_AFTER_ROTATION:
        raise UserError(
            f"{text.model_type} norms queries and keys after rotating them: methods that change attention cannot run "
            "on it."
        )
    rotations = layer_rotations(model, sources(model, trained))
    layers = {module: _layer(rotation, method, length, chosen) for module, rotation in rotations.items()}
    with identity_rotation(model, length), routed(model, RegionAttention(method, layers), first_seen):
        check_runs(model)
        yield _installed(rotations, layers)


def sources(model: CausalLM, trained: int | None) -> list[Source]:
    """What layers may rotate by: each rotary module, for each of its layer types."""
    return [
        Source(rotary, kind, rotary.geometry(kind, trained))
        for rotary in rotaries(model)
        for kind in rotary.layer_types
    ]


def _installed(
    rotations: Mapping[nn.Module, FoundRotation | None], layers: Mapping[nn.Module, Layer]
) -> tuple[Installed, ...]:
    found: dict[Source, Installed] = {}
    for module, rotation in rotations.items():
        held = layers[module].rotation
        if rotation is not None and held is not None:
            path, kind = rotation.source.rotary.path, rotation.source.layer_type
            found[rotation.source] = Installed(path, kind, np.abs(held.inv_freq), held.scaling, 0)
    return tuple(found.values())


def _layer(rotation: FoundRotation | None, method: AttentionMethod, length: int, chosen: Layers | None) -> Layer:
    if rotation is None:
        return Layer(None, plain=False)
    source = rotation.source
    plain = not is_acted_on(source.rotary.config, source.layer_type, chosen)
    wanted = RopeFrequencies(source.geometry.inv_freq) if plain else method(source.geometry, length)
    kept = wanted._replace(attention_scaling=wanted.attention_scaling * source.declared_scaling)
    return Layer(rotation.by(kept), plain)


def _check(module: nn.Module, query: Tensor, key: Tensor, seen: Tensor | None, options: Mapping[str, object]) -> None:
    assert isinstance(module.config, PretrainedConfig)  # as transformers' attention modules keep it
    name = text_config(module.config).model_type
    try:
        check_options(module, query, seen, options, whole=True)
    except LookupError as error:
        raise UserError(f"{name}: methods that change attention cannot run on it, since {error}.") from None
    if query.shape[2] != key.shape[2]:
        raise UserError("Methods that change attention score whole windows: run the model without a cache.")
    if is_grad_enabled() and query.requires_grad:
        raise UserError("Methods that change attention are for evaluation: they compute no gradients.")
