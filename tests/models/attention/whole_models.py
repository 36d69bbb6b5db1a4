"""Whole models whose attention is computed pair by pair in float64, for methods that count relative positions anew.

Nothing of the package is used. How a layer rotates is found by trying: the model's own logits must come out where
relative positions are the true ones.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from tests.tiny import logits

NAME = "pair by pair"
KNOWN = {"softcap", "s_aux"}  # options that count; the rest is idle
IDLE = {"dropout", "sliding_window", "position_ids", "use_cache", "is_causal", "cache_position"}
Relative = Callable[[int, int], float | None]


@dataclass(frozen=True)
class Rotation:
    """How one layer rotates; without frequencies: not at all."""

    kind: str | None  # the layer type whose frequencies these are; None: of all
    inv_freq: tuple[float, ...] = ()
    first: int = 0
    interleaved: bool = False


def rotations(config, width):
    """Everything that a layer with heads of `width` channels may do."""
    declared = config.rope_parameters
    nested = {kind: value for kind, value in declared.items() if isinstance(value, dict)} or {None: declared}
    found = [Rotation(None)]
    for kind, parameters in nested.items():
        partial = parameters.get("partial_rotary_factor", 1.0)
        dim = getattr(config, "qk_rope_head_dim", None) or int(width * partial)
        inv_freq = tuple(parameters["rope_theta"] ** (-np.arange(0, dim, 2) / dim))
        if dim > width:
            continue
        layouts = product(sorted({0, width - dim}), (False, True))
        found += [Rotation(kind, inv_freq, first, interleaved) for first, interleaved in layouts]
    return found


def scores(query, key, rotation, distance):
    """q_i . R(distance_ij) k_j, (batch, heads, length, length), of float64 states (batch, heads, length, width)."""
    pairs = len(rotation.inv_freq)
    channels = np.arange(2 * pairs) + rotation.first
    a, b = (channels[0::2], channels[1::2]) if rotation.interleaved else (channels[:pairs], channels[pairs:])
    rest = np.setdiff1d(np.arange(query.shape[-1]), channels)
    out = query[..., rest] @ key[..., rest].transpose(-1, -2)
    for m, frequency in enumerate(rotation.inv_freq):
        (qa, qb), (ka, kb) = ((x[..., a[m], None], x[..., b[m], None]) for x in (query, key))
        angle = torch.from_numpy(distance * frequency)
        ka, kb = ka.transpose(-1, -2), kb.transpose(-1, -2)
        out = out + (qa * ka + qb * kb) * angle.cos() + (qa * kb - qb * ka) * angle.sin()
    return out


class PairByPair:
    """An attention function: each layer by its rotation and the relative positions of its kind."""

    def __init__(self, layers: dict[int, Rotation], relative: Callable[[Rotation], Relative]):
        self.layers, self.relative, self.widths = layers, relative, {}

    def __call__(self, module, query, key, value, attention_mask, scaling=None, **options):
        asked = {name for name, option in options.items() if option is not None and not name.startswith("output_")}
        if asked - KNOWN - IDLE:
            raise LookupError(f"{asked - KNOWN - IDLE} is not known here")
        self.widths[module.layer_idx] = query.shape[-1]
        rotation = self.layers.get(module.layer_idx, Rotation(None))
        groups, length = query.shape[1] // key.shape[1], query.shape[2]
        query, key, value = query.double(), *(x.double().repeat_interleave(groups, dim=1) for x in (key, value))
        table = np.array([
            [np.nan if j > i or (d := self.relative(rotation)(i, j)) is None else d for j in range(length)]
            for i in range(length)
        ])  # fmt: skip
        logit = scores(query, key, rotation, np.nan_to_num(table)) * (scaling or query.shape[-1] ** -0.5)
        if options.get("softcap"):
            logit = (logit / options["softcap"]).tanh() * options["softcap"]
        if attention_mask is not None:
            logit = logit.masked_fill(attention_mask < -1e4, -torch.inf)
        logit = logit.masked_fill(torch.from_numpy(np.isnan(table)), -torch.inf)
        if options.get("s_aux") is not None:
            sinks = options["s_aux"].double()[None, :, None, None].expand(*logit.shape[:3], 1)
            weights = torch.cat((logit, sinks), dim=-1).softmax(-1)[..., :-1]
        else:
            weights = logit.softmax(-1)
        return (weights @ value).transpose(1, 2).to(module_dtype(module)).contiguous(), None


def module_dtype(module):
    return next(module.parameters()).dtype


@contextmanager
def attending(model: nn.Module, attention: PairByPair) -> Iterator[None]:
    """Until the block ends, rotary modules hand out rotations by nothing and layers call `attention`."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    rotary = [m for _, m in model.named_modules() if any("inv_freq" in n for n, _ in m.named_buffers(recurse=False))]
    before, forwards = model.config._attn_implementation, [m.forward for m in rotary]

    def still(forward):
        def answer(*args, **kwargs):
            out = forward(*args, **kwargs)
            if isinstance(out, tuple):
                return torch.ones_like(out[0]), torch.zeros_like(out[1])
            return torch.ones_like(out)

        return answer

    try:
        model.config._attn_implementation = NAME
        for module, forward in zip(rotary, forwards, strict=True):
            module.forward = still(forward)
        yield
    finally:
        model.config._attn_implementation = before
        for module in rotary:
            del module.forward


def found(model, ids):
    """The rotation of each layer, by index; None where no rotations explain the model's own logits."""
    own = logits(model, ids)
    probe = PairByPair({}, lambda _: lambda i, j: i - j)
    try:
        with attending(model, probe):
            logits(model, ids)
    except (LookupError, RuntimeError):
        return None
    layers = sorted(probe.widths)
    for some in product(*(rotations(model.config, probe.widths[layer]) for layer in layers)):
        with attending(model, PairByPair(dict(zip(layers, some, strict=True)), lambda _: lambda i, j: i - j)):
            if (logits(model, ids) - own).abs().max() < 1e-4:
                return dict(zip(layers, some, strict=True))
    return None
