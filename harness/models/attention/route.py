"""Sending a model's attention calls to a function of ours, for the length of a `with` block."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig

from harness.models.checkpoint.geometry import text_config
from harness.models.parts import CausalLM
from harness.models.swap import swapped

NAME = "harness"  # of our attention and mask functions among transformers'
Attention = Callable[..., tuple[Tensor, Tensor | None]]  # as transformers calls it
Mask = Callable[..., Tensor | None]  # as transformers calls it; what it returns reaches the attention function
_routes: dict[int, tuple[Attention, Mask]] = {}  # by id of the text configuration whose layers call


@contextmanager
def routed(model: CausalLM, attention: Attention, mask: Mask) -> Iterator[None]:
    """Until the block ends, text layers call `attention(module, query, key, value, what mask returned, **options)`.

    Layers that do not ask transformers' attention interface are not reached.
    """
    text = text_config(model.config)
    before = dict(_routes)
    with swapped(text, "_attn_implementation", NAME):
        _routes[id(text)] = attention, mask
        try:
            yield
        finally:
            _routes.clear()
            _routes.update(before)


def is_routed(model: CausalLM) -> bool:
    """Whether a function of ours already answers the model's attention calls."""
    return text_config(model.config)._attn_implementation == NAME


def present(model: CausalLM) -> tuple[Attention, Mask]:
    """The attention and mask functions that the model's text layers call now."""
    text = text_config(model.config)
    name = text._attn_implementation
    return _routes.get(id(text)) or (partial(_own, name), AttentionMaskInterface()[name])


def _own(name: str, module: nn.Module, *states: object, **options: object) -> tuple[Tensor, Tensor | None]:
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    function: Attention | None = AttentionInterface().get(name, eager)  # "eager" is that of the model's source file
    assert function is not None, f"{type(module).__name__} called an attention function that does not exist"
    return function(module, *states, **options)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    **options: object,
) -> tuple[Tensor, Tensor | None]:
    """Some families pass the mask by name (AFMoE): here it gets the place where our functions look for it."""
    return _routes[id(module.config)][0](module, query, key, value, attention_mask, **options)


def _mask(*, config: PretrainedConfig, **options: object) -> Tensor | None:
    return _routes[id(config)][1](config=config, **options)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
