"""Decoder layers compiled: each proves itself like any mode, and code compiled for one layer serves all."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

from harness.models.parts import CausalLM, LayerOutput, decoder_layers
from harness.models.swap import swapped

STATIC_SHAPES = {"cuda": True, "cpu": False}  # whether layers are compiled for each shape

Forwards = Sequence[Callable[..., LayerOutput]]  # of decoder layers, the first ones first


def compiled_forwards(model: CausalLM) -> Forwards:
    """The forwards of the decoder layers, compiled; made once, used by `compiled`.

    On a GPU for each shape that they meet, on a CPU once for all lengths: C++ takes longer to compile, and its loops
    do not gain from a known number of tokens.
    """
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)  # one a shape
    is_dynamic = not STATIC_SHAPES[model.device.type]
    return [torch.compile(layer.forward, dynamic=is_dynamic) for layer in decoder_layers(model)]


@contextmanager
def compiled(model: CausalLM, forwards: Forwards) -> Iterator[None]:
    """Until the block ends, as many of the first decoder layers as there are `forwards` run these, one code for all.

    Their index, which only a cache reads, is the same for all meanwhile: code compiled for one serves every other.
    """
    layers = decoder_layers(model)
    with ExitStack() as stack:
        for layer, forward in zip(layers, forwards, strict=False):
            stack.enter_context(swapped(layer, "forward", forward))
            for module in layer.modules():
                if hasattr(module, "layer_idx"):
                    stack.enter_context(swapped(module, "layer_idx", 0))
        yield
