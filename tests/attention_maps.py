"""Methods that change attention, each with its map of relative positions from the definition."""

import numpy as np

from harness import methods
from harness.methods.attention.dca import Dca
from harness.methods.attention.leaky_rerope import LeakyReRope
from harness.methods.attention.regions import relative_positions
from harness.methods.attention.rerope import ReRope
from harness.methods.attention.self_extend import SelfExtend
from harness.methods.attention.string import String
from harness.methods.attention.windowed import Windowed
from harness.methods.base import RopeGeometry
from tests.reference import attention as reference

GEOMETRY = RopeGeometry(rotary_dim=8, rope_theta=100.0, original_max_position_embeddings=40)
NAMES = [name for name, method in methods.METHODS.items() if method.kind == "attention"]
MAPS = {  # method -> its map, from the definition
    "rerope": (ReRope(window=5), lambda i, j: reference.rerope(i, j, 5)),
    "rerope, window 1": (ReRope(window=1), lambda i, j: reference.rerope(i, j, 1)),
    "leaky_rerope": (LeakyReRope(factor=3.5, window=6), lambda i, j: reference.leaky_rerope(i, j, 6, 3.5)),
    "self_extend": (SelfExtend(group=4, window=8), lambda i, j: reference.self_extend(i, j, 8, 4)),
    "self_extend, uneven": (SelfExtend(group=3, window=7), lambda i, j: reference.self_extend(i, j, 7, 3)),
    "self_extend, floor": (
        SelfExtend(group=3, window=7, floor_shift=True),
        lambda i, j: reference.self_extend(i, j, 7, 3, floor_shift=True),
    ),
    "dca": (Dca(chunk=12, local=3), lambda i, j: reference.dca(i, j, 12, 3)),
    "dca, small chunks": (Dca(chunk=12, local=8), lambda i, j: reference.dca(i, j, 12, 8)),
    "dca, paper": (Dca(form="paper", chunk=12, local=3), lambda i, j: reference.dca(i, j, 12, 3, "paper")),
    "string": (String(shift=9, window=4), lambda i, j: reference.string(i, j, 9, 4)),
    "string, window 0": (String(shift=9, window=0), lambda i, j: reference.string(i, j, 9, 0)),
    "windowed": (Windowed(window=6, sinks=3), lambda i, j: reference.lm_infinite(i, j, 6, 3)),
    "windowed, no sinks": (Windowed(window=6, sinks=0), lambda i, j: reference.lm_infinite(i, j, 6, 0)),
    "windowed, streaming": (
        Windowed(form="streaming", window=6, sinks=3),
        lambda i, j: reference.streaming(i, j, 6, 3),
    ),
}


def table(method, length):
    rows = np.arange(length)
    return relative_positions(method.resolved(GEOMETRY, length).regions(length), rows[:, None], rows)
