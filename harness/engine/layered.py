"""Layer-major evaluation: one layer at a time over the whole sequence, in chunks of tokens.

A decoder layer is causal, so its chunks can run one after the other: each writes its keys and values, attends to all
that lie before it, and overwrites its part of the residual stream, which no later chunk reads. Beyond the weights
memory holds one residual stream, the keys and values of one layer, and what a chunk needs. The layer's own forward
does the work; only its cache, its attention call and the slicing are ours, so every family keeps its own arithmetic.

Of positions that are not scored the last layer owes the others no more than keys and values: there its forward is left
as soon as these have reached the cache, before attention, output projection and MLP.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from harness.engine.attention import attention_on
from harness.engine.kept import Kept
from harness.models.attention.causal import causal_mask
from harness.models.attention.route import Attention, Mask, routed
from harness.models.parts import CausalLM, LayerOutput, cache_name, decoder_layers, final_norms
from harness.models.swap import swapped


@contextmanager
def chunked(
    model: CausalLM,
    chunk: int,
    first: int = 0,
    *,
    cache: "Callable[..., LayerCache] | None" = None,
    attention: Attention | None = None,
    mask: Mask | None = None,
    kept: Kept | None = None,
) -> Iterator[None]:
    """Until the block ends, decoder layers and final norm run `chunk` tokens at a time (of all rows of a batch).

    Hidden states come out right from position `first` on; before it they are not those of the last layer.
    `cache` makes what gives a layer the keys and values that a chunk sees, from the sequence's length, buffers that all
    layers share and the first position that is wanted of the layer; with it layers run in chunks that begin at
    multiples of `chunk`. `attention` and `mask` stand for `attend` and `causal_mask`. `kept`: layers run before.
    Raises LookupError where the model has no list of decoder layers, or they take no cache.
    """
    buffers: dict[int, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(routed(model, attention or attention_on(model.device), mask or causal_mask))
        layers = decoder_layers(model)
        for number, layer in enumerate(layers):
            wanted = first if layer is layers[-1] else 0
            run = _Layer(layer.forward, _home(layer), cache_name(layer), chunk, wanted, buffers, cache)
            forward = run if kept is None else partial(kept.run, number, run)
            stack.enter_context(swapped(layer, "forward", forward))
        behind = _Behind(layers[-1].forward)
        stack.enter_context(swapped(layers[-1], "forward", behind))
        for norm in final_norms(model):
            final = partial(_final_norm, behind, norm.forward, _home(norm), chunk, first)
            stack.enter_context(swapped(norm, "forward", final))
        yield


class KeysWritten(Exception):
    """Leaves a layer's forward where keys and values are all that is asked of it."""


class LayerCache:
    """Keys and values of one layer, written chunk by chunk into buffers that all layers share.

    `first`: the position from which on the layer's output is wanted; a chunk that ends there or before raises
    KeysWritten.
    """

    tokens_axis = 2

    def __init__(self, length: int, buffers: dict[int, Tensor], first: int = 0) -> None:
        self.length, self.first, self.buffers, self.seen = length, first, buffers, 0

    @torch.compiler.disable
    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append a chunk (batch, heads, tokens, channels); returns everything up to its end."""
        axis = self.tokens_axis
        begin, tokens = self.seen, keys.shape[axis]
        self.seen += tokens
        both = [self._buffer(i, x) for i, x in enumerate((keys, values))]
        for held, new in zip(both, (keys, values), strict=True):
            held.narrow(axis, begin, tokens).copy_(new)
        if self.seen <= self.first:
            raise KeysWritten
        return both[0].narrow(axis, 0, self.seen), both[1].narrow(axis, 0, self.seen)

    def get_seq_length(self, *_: object) -> int:
        """Tokens written so far."""
        return self.seen

    def _buffer(self, index: int, like: Tensor) -> Tensor:
        shape = torch.Size(self.length if i == self.tokens_axis else size for i, size in enumerate(like.shape))
        held = self.buffers.get(index)
        if held is None or held.shape != shape or held.dtype != like.dtype or held.device != like.device:
            self.buffers[index] = held = like.new_empty(shape)
        return held


def _home(module: nn.Module) -> torch.device | None:
    """The device of a module's weights; None where they come to the states, because they are kept elsewhere."""
    devices = {parameter.device for parameter in module.parameters()}
    return devices.pop() if len(devices) == 1 and torch.device("meta") not in devices else None


@dataclass(frozen=True)
class _Layer:
    """A decoder layer's forward for the whole sequence, hidden states (batch, length, channels), chunk by chunk."""

    forward: Callable[..., LayerOutput]
    home: torch.device | None
    cache_name: str
    chunk: int
    first: int
    buffers: dict[int, Tensor]
    cache: "Callable[..., LayerCache] | None"

    def __call__(self, hidden: Tensor, *args: object, **kwargs: object) -> LayerOutput:
        length = hidden.shape[1]
        if length <= self.chunk and self.first == 0 and self.cache is None:
            return self.forward(hidden, *args, **kwargs)
        if hidden.ndim != 3:
            raise LookupError(f"layers hand on a stream of {hidden.ndim - 1} axes a row, not of tokens and channels")
        kwargs[self.cache_name] = None
        hidden = hidden.to(self.home)  # once, not chunk by chunk, where layers are spread over devices
        cache = (self.cache or LayerCache)(length, self.buffers, self.first)
        for piece in (slice(*ends) for ends in pairwise(self._edges(length))):
            own = {name: _cut(value, piece, length) for name, value in kwargs.items()} | {self.cache_name: cache}
            with suppress(KeysWritten):
                out = self.forward(hidden[:, piece], *(_cut(value, piece, length) for value in args), **own)
                hidden[:, piece] = out if isinstance(out, Tensor) else out[0]
        return hidden if isinstance(out, Tensor) else (hidden, *out[1:])

    def _edges(self, length: int) -> list[int]:
        if self.cache is not None:
            return sorted({*range(0, length, self.chunk), self.first, length})
        return [*range(0, self.first, self.chunk), *range(self.first, length, self.chunk), length]


def _cut(value: object, piece: slice, length: int) -> object:
    """The chunk's part of anything that has one entry a token: (batch, length, ...) or (batch, heads, length, ...)."""
    if isinstance(value, tuple | list):
        return type(value)(_cut(part, piece, length) for part in value)
    if not isinstance(value, Tensor) or value.ndim < 2:
        return value
    axis = 2 if value.ndim == 4 else 1
    if value.shape[axis] != length:
        return value
    return value[:, :, piece] if axis == 2 else value[:, piece]


@dataclass
class _Behind:
    """The last layer, and the shape of what came out of it until a norm has taken it; None: layers have not run."""

    forward: Callable[..., LayerOutput]
    shape: torch.Size | None = None

    def __call__(self, *args: object, **kwargs: object) -> LayerOutput:
        out = self.forward(*args, **kwargs)
        self.shape = (out if isinstance(out, Tensor) else out[0]).shape
        return out


def _final_norm(
    behind: _Behind,
    forward: Callable[..., Tensor],
    home: torch.device | None,
    chunk: int,
    first: int,
    hidden: Tensor,
) -> Tensor:
    """A norm of what comes out of the layers, chunk by chunk; of all else (Gemma 4: inputs of layers) as it is."""
    if hidden.shape != behind.shape:
        return forward(hidden)
    behind.shape, hidden = None, hidden.to(home)
    for begin in range(first, hidden.shape[1], chunk):
        hidden[:, begin : begin + chunk] = forward(hidden[:, begin : begin + chunk])
    return hidden
