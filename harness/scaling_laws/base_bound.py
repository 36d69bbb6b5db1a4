"""How far a base reaches: the length up to which a key like the query is told from any other.

Men et al. 2024, "Base of RoPE Bounds Context Length", arXiv:2405.14591. Over queries and keys at distance m, a key that
resembles the query scores higher than a random one by a multiple of

    B(m) = sum_i cos(m inv_freq_i)
A context of L tokens needs B(m) >= 0 at every m = 0, 1, ..., L. Bases that pass are not one interval: some above the
smallest fail, so what is called the smallest is the first that passes of a grid.
"""

import numpy as np
from numpy.typing import NDArray

from harness.methods.base import RopeGeometry

GRID: NDArray[np.float64] = np.logspace(3, 10, 141)  # 20 a decade
CHUNK = 4096  # distances


def base_bound(inv_freq: NDArray[np.float64], ctx: int, resting: int = 0) -> int:
    """The largest distance, at most `ctx` tokens, up to which B is nowhere below zero.

    inv_freq: (rotary_dim // 2,), radians a token; resting: channels beside them that never turn.
    """
    for begin in range(0, ctx + 1, CHUNK):
        distances = np.arange(begin, min(begin + CHUNK, ctx + 1), dtype=np.float64)
        below = np.cos(distances[:, None] * inv_freq).sum(axis=1) + resting / 2 < 0
        if below.any():
            return begin + int(np.argmax(below)) - 1
    return ctx


def smallest_base(geometry: RopeGeometry, ctx: int, grid: NDArray[np.float64] = GRID) -> float | None:
    """The first base of a rising grid with which this geometry passes at `ctx` tokens; None: none of them does."""
    exponent = np.arange(0, geometry.rotary_dim, 2) / geometry.exponent_dim
    passing = (float(base) for base in grid if base_bound(base**-exponent, ctx, geometry.resting) == ctx)
    return next(passing, None)
