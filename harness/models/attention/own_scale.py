"""A checkpoint's own scale of queries by their position, taken out for the length of a `with` block."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from harness.errors import UserError
from harness.models.checkpoint.families import QUERY_SCALE_FLAG, QUERY_SCALE_STRENGTH, ROPE_QUERY_SCALE
from harness.models.checkpoint.geometry import text_config
from harness.models.parts import CausalLM
from harness.models.swap import swapped


class _Place(NamedTuple):
    """An attribute by which a family's code scales queries, and the value at which it does not."""

    owner: object
    name: str
    off: object


def scales_queries(model: CausalLM) -> bool:
    """Whether the checkpoint's own code multiplies queries by a number of their position."""
    return bool(_places(model))


@contextmanager
def without_own_scale(model: CausalLM) -> Iterator[None]:
    """Until the block ends, queries keep the length that they are projected to.

    Raises UserError, by name, where the checkpoint scales none.
    """
    places = _places(model)
    if not places:
        raise UserError(
            f"method.remove_query_scale: {text_config(model.config).model_type} scales no queries by their position: "
            "it must be false, got true."
        )
    with ExitStack() as stack:
        for place in places:
            stack.enter_context(swapped(*place))
        yield


def _places(model: CausalLM) -> list[_Place]:
    """As layers read them: some when they are built, others from their configuration at each call."""
    flags = [_Place(m, QUERY_SCALE_FLAG, False) for m in model.modules() if _is_on(m)]
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}.values()
    for config in configs:
        floor, strength = QUERY_SCALE_STRENGTH
        if getattr(config, floor, None) and getattr(config, strength, None):
            flags.append(_Place(config, strength, 0.0))
        declared = getattr(config, "rope_parameters", None) or {}
        if declared.get(ROPE_QUERY_SCALE):
            flags.append(_Place(config, "rope_parameters", {**declared, ROPE_QUERY_SCALE: 0.0}))
    return flags


def _is_on(module: object) -> bool:
    """Whether a layer of Llama 4 scales: one without positions whose flag is set."""
    return getattr(module, QUERY_SCALE_FLAG, False) is True and not getattr(module, "use_rope", False)
