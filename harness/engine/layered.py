"""Layer-major evaluation: one layer at a time over the whole sequence, in chunks of tokens.

A decoder layer is causal, so its chunks can run one after the other: each writes its keys and values, attends to all
that lie before it, and overwrites its part of the residual stream, which no later chunk reads. Beyond the weights
memory holds one residual stream, the keys and values of one layer, and what a chunk needs. The layer's own forward
does the work; only its cache, its attention call and the slicing are ours, so every family keeps its own arithmetic.

Of positions that are not scored the last layer owes the others no more than keys and values: there its forward is left
as soon as these have reached the cache, before attention, output projection and MLP.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import causal_mask_function

from harness.models.attention.first_seen import first_seen
from harness.models.attention.fused import fused, merged
from harness.models.attention.route import Attention, Mask, routed
from harness.models.swap import swapped

CACHE_NAMES = ("past_key_values", "layer_past", "past_key_value")
UNKNOWN_OPTIONS = ("softcap", "s_aux", "position_bias")
MASKED_ROWS = 1024  # queries of one masked block, where a layer sees only a window
STATIC_SHAPES = {"cuda": True, "cpu": False}  # whether layers are compiled for each shape

Forwards = Sequence[Callable[..., Any]]  # of decoder layers, the first ones first


@contextmanager
def chunked(
    model: Any,
    chunk: int,
    first: int = 0,
    *,
    cache: "Callable[..., LayerCache] | None" = None,
    attention: Attention | None = None,
    mask: Mask | None = None,
) -> Iterator[None]:
    """Until the block ends, decoder layers and final norm run `chunk` tokens at a time (of all rows of a batch).

    Hidden states come out right from position `first` on; before it they are not those of the last layer.
    `cache` makes what gives a layer the keys and values that a chunk sees, from the sequence's length and buffers
    that all layers share; `attention` and `mask` stand for `attend` and `_mask`.
    Raises LookupError where the model has no list of decoder layers, or they take no cache.
    """
    body = _body(model)
    buffers: dict[int, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(routed(model, attention or _ATTENTION.get(model.device.type, attend), mask or _mask))
        layers = decoder_layers(body)
        for layer in layers:
            wanted = first if layer is layers[-1] else 0
            make = partial(cache or partial(LayerCache, first=wanted), buffers=buffers)
            forward = partial(_layer, layer.forward, _home(layer), _cache_name(layer), chunk, wanted, make)
            stack.enter_context(swapped(layer, "forward", forward))
        for norm in final_norms(body):
            forward = partial(_tokenwise, norm.forward, _home(norm), chunk, first)
            stack.enter_context(swapped(norm, "forward", forward))
        yield


def compiled_forwards(model: Any) -> Forwards:
    """The forwards of the decoder layers, compiled; made once, used by `compiled`.

    On a GPU for each shape that they meet, on a CPU once for all lengths: C++ takes longer to compile, and its loops
    do not gain from a known number of tokens.
    """
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)  # one a shape
    is_dynamic = not STATIC_SHAPES[model.device.type]
    return [torch.compile(layer.forward, dynamic=is_dynamic) for layer in decoder_layers(_body(model))]


@contextmanager
def compiled(model: nn.Module, forwards: Forwards) -> Iterator[None]:
    """Until the block ends, as many of the first decoder layers as there are `forwards` run these, one code for all.

    Their index, which only a cache reads, is the same for all meanwhile: code compiled for one serves every other.
    """
    layers = decoder_layers(_body(model))
    with ExitStack() as stack:
        for layer, forward in zip(layers, forwards, strict=False):
            stack.enter_context(swapped(layer, "forward", forward))
            for module in layer.modules():
                if hasattr(module, "layer_idx"):
                    stack.enter_context(swapped(module, "layer_idx", 0))
        yield


def _body(model: Any) -> nn.Module:
    body: nn.Module = getattr(model, model.base_model_prefix)
    return body


def decoder_layers(body: nn.Module) -> nn.ModuleList:
    """The list of decoder layers; LookupError where there is none."""
    lists = [m for m in body.children() if isinstance(m, nn.ModuleList) and all("Layer" in type(x).__name__ for x in m)]
    if len(lists) != 1:
        raise LookupError(f"{type(body).__name__} has {len(lists)} lists of decoder layers, one is needed")
    return lists[0]


def final_norms(body: nn.Module) -> list[nn.Module]:
    """Norms that the body applies to the whole sequence."""
    return [m for m in body.children() if type(m).__name__.endswith("Norm")]


def _cache_name(layer: nn.Module) -> str:
    known = inspect.signature(layer.forward).parameters
    named = [name for name in CACHE_NAMES if name in known]
    if not named:
        raise LookupError(f"{type(layer).__name__} takes no cache")
    return named[0]


class KeysWritten(Exception):
    """Leaves a layer's forward where keys and values are all that is asked of it."""


class LayerCache:
    """Keys and values of one layer, written chunk by chunk into buffers that all layers share.

    `first`: the position from which on the layer's output is wanted; a chunk that ends there or before raises
    KeysWritten.
    """

    def __init__(self, length: int, buffers: dict[int, Tensor], first: int = 0) -> None:
        self.length, self.first, self.buffers, self.seen = length, first, buffers, 0

    @torch.compiler.disable
    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append a chunk (batch, heads, tokens, channels); returns everything up to its end."""
        end = self.seen + keys.shape[2]
        both = [self._buffer(i, x)[:, :, :end] for i, x in enumerate((keys, values))]
        for held, new in zip(both, (keys, values), strict=True):
            held[:, :, self.seen :] = new
        self.seen = end
        if end <= self.first:
            raise KeysWritten
        return both[0], both[1]

    def get_seq_length(self, *_: Any) -> int:
        """Tokens written so far."""
        return self.seen

    def _buffer(self, index: int, like: Tensor) -> Tensor:
        shape = (*like.shape[:2], self.length, like.shape[3])
        held = self.buffers.get(index)
        if held is None or held.shape != shape or held.dtype != like.dtype or held.device != like.device:
            self.buffers[index] = held = like.new_empty(shape)
        return held


def _home(module: nn.Module) -> torch.device | None:
    """The device of a module's weights; None where they come to the states, because they are kept elsewhere."""
    devices = {parameter.device for parameter in module.parameters()}
    return devices.pop() if len(devices) == 1 and torch.device("meta") not in devices else None


def _layer(
    forward: Callable[..., Any],
    home: torch.device | None,
    cache_name: str,
    chunk: int,
    first: int,
    make_cache: "Callable[[int], LayerCache]",
    hidden: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Any:
    length = hidden.shape[1]
    if length <= chunk and first == 0:
        return forward(hidden, *args, **kwargs)
    kwargs[cache_name] = None
    hidden = hidden.to(home)  # once, not chunk by chunk, where layers are spread over devices
    cache = make_cache(length)
    edges = [*range(0, first, chunk), *range(first, length, chunk), length]
    for piece in (slice(*ends) for ends in pairwise(edges)):
        own = {name: _cut(value, piece, length) for name, value in kwargs.items()} | {cache_name: cache}
        with suppress(KeysWritten):
            out = forward(hidden[:, piece], *(_cut(value, piece, length) for value in args), **own)
            hidden[:, piece] = out if isinstance(out, Tensor) else out[0]
    return hidden if isinstance(out, Tensor) else (hidden, *out[1:])


def _cut(value: Any, piece: slice, length: int) -> Any:
    """The chunk's part of anything that has one entry a token: (batch, length, ...) or (batch, heads, length, ...)."""
    if isinstance(value, tuple | list):
        return type(value)(_cut(part, piece, length) for part in value)
    if not isinstance(value, Tensor) or value.ndim < 2:
        return value
    axis = 2 if value.ndim == 4 else 1
    if value.shape[axis] != length:
        return value
    return value[:, :, piece] if axis == 2 else value[:, piece]


def _tokenwise(
    forward: Callable[..., Tensor], home: torch.device | None, chunk: int, first: int, hidden: Tensor
) -> Tensor:
    hidden = hidden.to(home)
    for begin in range(first, hidden.shape[1], chunk):
        hidden[:, begin : begin + chunk] = forward(hidden[:, begin : begin + chunk])
    return hidden


def _mask(*, mask_function: Any, attention_mask: Tensor | None, **options: Any) -> Tensor | None:
    """None where a layer is simply causal; else the first key that each query sees."""
    if mask_function is causal_mask_function and attention_mask is None:
        return None
    return first_seen(mask_function=mask_function, attention_mask=attention_mask, **options)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    first: Tensor | None = None,
    *,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention of the last query.shape[2] positions over all keys; output (batch, length, heads, channels)."""
    if unknown := [name for name in UNKNOWN_OPTIONS if options.get(name) is not None]:
        raise LookupError(f"{type(module).__name__} asks for {unknown[0]}, which fused attention does not know")
    if first is not None:
        return _windowed(query, key, value, first, scaling).transpose(1, 2).contiguous(), None
    if query.shape[2] == key.shape[2]:
        return sdpa_attention_forward(module, query, key, value, None, scaling=scaling, is_causal=True)
    return after_past(query, key, value, scaling).transpose(1, 2).contiguous(), None


# A compiled layer binds scaled_dot_product_attention to the flash kernel, on Hopper the slower one: there it stays out.
_ATTENTION = {"cuda": torch.compiler.disable(attend)}


def after_past(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """Causal attention of a chunk of queries that ends where the keys end.

    Two exact pieces merged by their log-sum-exp: all earlier keys, unmasked, and the chunk's own, causal.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    past = key.shape[2] - query.shape[2]
    before = fused(query, key[:, :, :past], value[:, :, :past], scale)
    own = fused(query, key[:, :, past:], value[:, :, past:], scale, causal=True)
    return merged([before, own]).to(query.dtype)


@torch.compiler.disable  # plans its blocks from numbers in tensors
def _windowed(query: Tensor, key: Tensor, value: Tensor, first: Tensor, scale: float | None) -> Tensor:
    """Attention of queries that see keys [first, own position]: blocks of rows over just the keys they see."""
    past = key.shape[2] - query.shape[2]
    groups = query.shape[1] // key.shape[1]
    out = query.new_empty(*query.shape[:3], value.shape[-1])
    starts = first.flatten()
    for begin in range(0, query.shape[2], MASKED_ROWS):
        end = min(begin + MASKED_ROWS, query.shape[2])
        low = int(starts[begin:end].min())
        keys = torch.arange(low, past + end, device=query.device)
        rows = torch.arange(past + begin, past + end, device=query.device)[:, None]
        seen = (keys >= starts[begin:end, None].to(query.device)) & (keys <= rows)
        keys_seen, values_seen = (repeat_kv(x[:, :, low : past + end], groups) for x in (key, value))
        out[:, :, begin:end] = scaled_dot_product_attention(
            query[:, :, begin:end], keys_seen, values_seen, attn_mask=seen, scale=scale
        )
    return out
