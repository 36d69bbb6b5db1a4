"""Layouts of heads, random queries, keys and values, and both ways of attending over them."""

import torch

from harness.models.attention import tiles
from harness.models.attention.rotation import LayerRotation
from harness.models.checkpoint.geometry import geometry
from harness.models.install import applied
from tests.attention_maps import GEOMETRY
from tests.reference import attention as reference
from tests.tiny import logits

LAYOUTS = {  # heads, key heads, head_dim, value_dim, first rotary channel, interleaved
    "multi-head": (2, 2, 8, 8, 0, False),
    "grouped": (4, 2, 8, 8, 0, False),
    "one key head, interleaved": (3, 1, 8, 8, 0, True),
    "partial": (2, 1, 14, 14, 0, False),
    "latent": (2, 2, 12, 6, 4, True),
}


def random_states(layout, length, dtype, seed=0):
    heads, key_heads, head_dim, value_dim, *_ = LAYOUTS[layout]
    generator = torch.Generator().manual_seed(seed)
    shapes = (2, heads, length, head_dim), (2, key_heads, length, head_dim), (2, key_heads, length, value_dim)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def attended(method, layout, query, key, value, **options):
    first, interleaved = LAYOUTS[layout][4:]
    rotation = LayerRotation(tuple(GEOMETRY.inv_freq), first, interleaved, options.pop("scaling", 1.0))
    parts = tiles.parts(method.resolved(GEOMETRY, query.shape[2]).regions(query.shape[2]), rotation, query)
    return tiles.attend(query, key, value, parts, 0.3, **options)


def naive(relative, layout, *states, **options):
    first, interleaved = LAYOUTS[layout][4:]
    states = [s.double().cpu().numpy() for s in states]
    return reference.attention(
        *states, relative, GEOMETRY.inv_freq, scale=0.3, first=first, interleaved=interleaved, **options
    )


def under(model, method, ids, **options):
    with applied(model, method.resolved(geometry(model.config), ids.shape[1]), ids.shape[1], **options):
        return logits(model, ids)
