"""How each attention layer rotates its queries and keys, found out by comparing them with and without rotation."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import UserError, first_line
from harness.methods.base import RopeFrequencies, RopeGeometry
from harness.models.attention.rotation import LayerRotation
from harness.models.attention.route import present, routed
from harness.models.checkpoint.geometry import text_config
from harness.models.parts import CausalLM
from harness.models.rotary.find import Rotary, identity_rotation

LENGTH = 16  # tokens
FAILURES = (AttributeError, LookupError, TypeError, RuntimeError, ValueError)  # of code that gets what it does not know
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}  # of the states' norm; halves of precision round more
HALF_TOLERANCE = 3e-2


@dataclass(frozen=True, eq=False)
class Source:
    """One set of frequencies that layers may rotate by: a rotary module, for one of its layer types."""

    rotary: Rotary
    layer_type: str | None
    geometry: RopeGeometry

    @property
    def declared_scaling(self) -> float:
        """The multiplier of cosines and sines that the checkpoint declares."""
        name = "attention_scaling" if self.layer_type is None else f"{self.layer_type}_attention_scaling"
        return float(getattr(getattr(self.rotary, "module", None), name, 1.0))


@dataclass(frozen=True)
class FoundRotation:
    """How one layer rotates: by which source, on which channels of its heads, in which layout."""

    source: Source
    first: int  # rotary channel
    interleaved: bool
    backwards: bool = False  # by negative angles (nanochat)

    def by(self, frequencies: RopeFrequencies) -> LayerRotation:
        """The layer's rotation by other frequencies."""
        inv_freq = tuple(-frequencies.inv_freq if self.backwards else frequencies.inv_freq)
        resting = self.source.geometry.resting // 2
        return LayerRotation(inv_freq, self.first, self.interleaved, frequencies.attention_scaling, resting)


States = dict[nn.Module, tuple[Tensor, Tensor]]  # queries and keys that reached a layer's attention


@torch.no_grad()
def layer_rotations(model: CausalLM, sources: Sequence[Source]) -> dict[nn.Module, FoundRotation | None]:
    """For every attention layer that can be reached, how it rotates; None: not at all.

    Raises UserError, by name, where no layer calls attention through transformers' interface, and where a layer does
    something else to queries and keys after rotating them. The frequencies of the sources are told apart by rotating
    each by its own multiple of them.
    """
    if not sources:
        return {}
    rotated = {s: RopeFrequencies(s.geometry.inv_freq * (1 + 0.25 * n)) for n, s in enumerate(sources)}
    with identity_rotation(model, LENGTH):
        still = _states(model)
    with ExitStack() as stack:
        for rotary in {id(source.rotary): source.rotary for source in sources}.values():
            wanted = {s.layer_type: (s.geometry, [rotated[s]]) for s in sources if s.rotary is rotary}
            stack.enter_context(rotary.rotated(wanted, LENGTH))
        moved = _states(model)
    return {layer: _explained(model, still[layer], moved[layer], rotated) for layer in still}


@torch.no_grad()
def check_reached(model: CausalLM) -> None:
    """Raise UserError, by name, where no layer calls attention through transformers' interface."""
    _states(model)


def _states(model: CausalLM) -> States:
    """Queries and keys of each layer, attention replaced by each token's own value so that all runs agree."""
    seen: States = {}
    text = text_config(model.config)

    def record(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, None]:
        if query.shape[2] != key.shape[2]:
            raise UserError(
                f"{type(module).__name__} attends to keys that are not its own tokens': methods and modifiers that "
                f"change attention cannot run on {text.model_type}."
            )
        seen[module] = query, key
        return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1).transpose(1, 2).contiguous(), None

    with routed(model, record, present(model)[1]):
        check_runs(model)
    if not seen:
        raise UserError(
            f"{text.model_type} does not call attention through transformers' attention interface: methods and "
            "modifiers that change attention cannot run on it."
        )
    return seen


@torch.no_grad()
def check_runs(model: CausalLM) -> None:
    """Raise UserError, by name, where a model looks into masks, or into what attention returns."""
    text = text_config(model.config)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, text.vocab_size, (1, LENGTH), generator=generator).to(next(model.parameters()).device)
    try:
        model(input_ids=ids, use_cache=False)
    except (UserError, torch.OutOfMemoryError):
        raise
    except FAILURES as error:
        raise UserError(
            f"{text.model_type} looks into its attention masks ({first_line(error)}): methods and modifiers that "
            "change attention cannot run on it."
        ) from error


def _explained(
    model: CausalLM,
    still: tuple[Tensor, Tensor],
    moved: tuple[Tensor, Tensor],
    rotated: Mapping[Source, RopeFrequencies],
) -> FoundRotation | None:
    tolerance = TOLERANCE.get(still[0].dtype, HALF_TOLERANCE)
    if _distance(still, moved) <= 1e-3 * tolerance:
        return None
    found = [
        (_distance(_rotated(still, rotation.by(frequencies)), moved), rotation)
        for source, frequencies in rotated.items()
        for rotation in _layouts(source, still[0].shape[-1])
    ]
    distance, rotation = min(found, key=lambda pair: pair[0], default=(math.inf, None))
    if distance > tolerance:
        raise UserError(
            f"{text_config(model.config).model_type} does more to queries and keys than rotate them before attention: "
            "methods that change attention cannot run on it."
        )
    return rotation


def _layouts(source: Source, head_dim: int) -> list[FoundRotation]:
    spare = head_dim - source.geometry.exponent_dim  # below 0: heads of other layers, which are wider
    first = [channel for channel in sorted({0, spare}) if 0 <= channel <= spare]
    return [FoundRotation(source, *found) for found in product(first, (False, True), (False, True))]


def _rotated(still: tuple[Tensor, Tensor], rotation: LayerRotation) -> tuple[Tensor, Tensor]:
    query, key = (states.double() for states in still)
    table = rotation.table(np.arange(LENGTH, dtype=np.float64), query)
    return table.rotate(query), table.rotate(key)


def _distance(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """The largest relative difference, of queries or of keys."""
    return max(float((a.double() - b.double()).norm() / b.double().norm()) for a, b in zip(one, other, strict=True))
