"""Ramps over dimensions, shared by YaRN and NTK-by-parts."""

import math

import numpy as np
from numpy.typing import NDArray

from harness.methods.base import RopeGeometry


def corner(geometry: RopeGeometry, rotations: float) -> float:
    """Index, not rounded, of the frequency that turns `rotations` times over the trained length.

    Solves original_max_position_embeddings rope_theta^(-2i / d) = 2 pi rotations for i, d = exponent_dim.
    Peng et al. 2023, arXiv:2309.00071, section 3.2 and code.
    """
    turns_of_first = geometry.original_max_position_embeddings / (2 * math.pi)
    return geometry.exponent_dim * math.log(turns_of_first / rotations) / (2 * math.log(geometry.rope_theta))


def dimension_ramp(geometry: RopeGeometry, fast: float, slow: float, *, truncate: bool = True) -> NDArray[np.float64]:
    """0 up to the corner turning `fast` times, 1 from the one turning `slow` times, linear in index between.

    Shape (rotary_dim // 2,). `truncate` rounds the corners outwards. Corners are clamped to [0, rotary_dim - 1]
    as in the authors' code. Indices end at rotary_dim / 2 - 1, where some ports clamp: that differs only if
    the slow corner lies beyond the last frequency (original length above about 2 pi rope_theta slow).
    """
    low, high = corner(geometry, fast), corner(geometry, slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, geometry.rotary_dim - 1)
    if low == high:
        high += 0.001  # a step, not a division by zero
    index = np.arange(geometry.rotary_dim // 2, dtype=np.float64)
    return np.clip((index - low) / (high - low), 0, 1)
