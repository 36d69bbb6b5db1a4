"""Keys and values rounded as a cache in few bits would hold them, before a layer attends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.methods.modifiers.kv_cache import BLOCK, FP8_LARGEST, KvCache
from harness.models.attention.layer_rotation import check_reached
from harness.models.attention.route import present, routed
from harness.models.checkpoint.geometry import text_config
from harness.models.parts import CausalLM


@contextmanager
def few_bits(model: CausalLM, cache: KvCache) -> Iterator[None]:
    """Until the block ends, every layer attends to keys (after rotation) and values as `cache` would give them back.

    Raises UserError, by name, where layers do not call attention through transformers' interface, where a head's
    channels are no whole number of blocks, and for models run with a cache of their own.
    """
    check_reached(model)
    attention, mask = present(model)
    rounded = ROUNDED[cache]

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: object, **options: object
    ) -> tuple[Tensor, Tensor | None]:
        if query.shape[2] != key.shape[2]:
            raise UserError("method.kv_cache scores whole windows: run the model without a cache.")
        for states in (key, value):
            if cache.startswith("q") and states.shape[-1] % BLOCK:
                raise UserError(
                    f"method.kv_cache={cache}: heads of {text_config(model.config).model_type} must have a multiple of "
                    f"{BLOCK} channels, got {states.shape[-1]}."
                )
        return attention(module, query, rounded(key), rounded(value), *rest, **options)

    with routed(model, attend, mask):
        yield


def _fp8_e4m3(states: Tensor) -> Tensor:
    """Each number as the nearest of 4 bits of exponent and 3 of mantissa, those beyond 448 as 448; any shape."""
    held = states.float().clamp(-FP8_LARGEST, FP8_LARGEST).to(torch.float8_e4m3fn)
    return held.to(states.dtype)


def _int8(states: Tensor) -> Tensor:
    """Whole steps of a 127th of each token's largest channel, (..., tokens, channels)."""
    wide = states.float()
    step = wide.abs().amax(dim=-1, keepdim=True) / 127
    steps = torch.where(step > 0, (wide / step), 0).round()
    return (steps * step).to(states.dtype)


def _q8_0(states: Tensor) -> Tensor:
    """Blocks of 32 channels in steps of a 127th of the block's largest, the step kept in half precision."""
    blocks = states.float().unflatten(-1, (-1, BLOCK))
    step = blocks.abs().amax(dim=-1, keepdim=True) / 127
    ratio = torch.where(step > 0, blocks / step, 0)
    steps = torch.copysign((ratio.abs() + 0.5).floor(), ratio)  # halves away from zero
    return (steps * step.half().float()).flatten(-2).to(states.dtype)


def _q4_0(states: Tensor) -> Tensor:
    """Blocks of 32 channels in 16 steps of an 8th of the block's largest, which is -8 steps; the step in half."""
    blocks = states.float().unflatten(-1, (-1, BLOCK))
    largest = blocks.gather(-1, blocks.abs().argmax(dim=-1, keepdim=True))
    step = largest / -8
    ratio = torch.where(step != 0, blocks / step, 0)
    steps = (ratio + 8.5).floor().clamp(max=15) - 8
    return (steps * step.half().float()).flatten(-2).to(states.dtype)


ROUNDED: dict[KvCache, Callable[[Tensor], Tensor]] = {
    "fp8_e4m3": _fp8_e4m3,
    "int8": _int8,
    "q8_0": _q8_0,
    "q4_0": _q4_0,
}
