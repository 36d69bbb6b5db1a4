"""Everything in a model that rotates queries and keys."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from harness.methods.base import RopeFrequencies
from harness.models.checkpoint.families import ALIBI
from harness.models.checkpoint.geometry import no_rotary, text_config
from harness.models.parts import CausalLM
from harness.models.rotary.modules import RotaryModule, rotary_modules
from harness.models.rotary.tables import SinusoidTables, sinusoid_tables

Rotary = RotaryModule | SinusoidTables


def rotaries(model: CausalLM) -> list[Rotary]:
    """Everything in the model that rotates queries and keys; [] where nothing does.

    Some models with ALiBi have a rotary module that no layer asks (Falcon).
    """
    if getattr(text_config(model.config), ALIBI, False):
        return []
    return [*rotary_modules(model), *sinusoid_tables(model)]


@contextmanager
def identity_rotation(model: CausalLM, length: int) -> Iterator[None]:
    """Until the block ends, queries and keys leave the rotary embedding as they entered it."""
    rotary = rotaries(model)
    if not rotary:
        raise no_rotary(text_config(model.config))
    with ExitStack() as stack:
        for module in rotary:
            # only how many pairs there are counts of a geometry: some models do not say what length they trained on
            geometries = {kind: module.geometry(kind, length) for kind in module.layer_types}
            still = {kind: (g, [RopeFrequencies(np.zeros_like(g.inv_freq))]) for kind, g in geometries.items()}
            stack.enter_context(module.rotated(still, length))
        yield
