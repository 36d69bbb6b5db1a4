"""What methods that change attention share: regions of the score matrix, each with its own positions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import UserError


@dataclass(frozen=True)
class Region:
    """A part of the causal score matrix of a window in which positions are counted in one way.

    Query i sees the keys j with begin[i] <= j < end[i], at relative position query_positions[i] - key_positions[j].
    The regions of a method do not overlap; a key in none of them is not attended to. All arrays are (length,).
    """

    begin: NDArray[np.int64]  # first key of each query, non-decreasing
    end: NDArray[np.int64]  # one past its last key, non-decreasing; <= begin where the query sees none
    query_positions: NDArray[np.float64]  # tokens
    key_positions: NDArray[np.float64]  # tokens


def relative_positions(regions: Sequence[Region], i: ArrayLike, j: ArrayLike) -> NDArray[np.float64]:
    """The relative position at which query i sees key j, in tokens, NaN where it does not; (...), as both broadcast.

    `i` and `j` are arrays of positions below the regions' length that broadcast against each other.
    """
    queries, keys = np.broadcast_arrays(np.asarray(i), np.asarray(j))
    relative = np.full(queries.shape, np.nan)
    for region in regions:
        seen = (keys >= region.begin[queries]) & (keys < region.end[queries])
        distance = region.query_positions[queries] - region.key_positions[keys]
        relative = np.where(seen, distance, relative)
    return relative


def positions(length: int) -> NDArray[np.float64]:
    """0, 1, ..., length - 1, shape (length,)."""
    return np.arange(length, dtype=np.float64)


def near(length: int, window: int) -> Region:
    """Keys fewer than `window` tokens back, at their true distance; arrays of (length,)."""
    rows = np.arange(length)
    return Region(np.maximum(0, rows - window + 1), rows + 1, positions(length), positions(length))


def far(length: int, window: int, query_positions: NDArray[np.float64], key_positions: NDArray[np.float64]) -> Region:
    """Keys at least `window` tokens back, at the given positions, (length,)."""
    rows = np.arange(length)
    return Region(np.zeros_like(rows), np.maximum(0, rows - window + 1), query_positions, key_positions)


def check_tokens(method: str, least: int = 1, **counts: int | None) -> None:
    """Raise unless every number of tokens given by name is at least `least`, or None (filled in later)."""
    for name, count in counts.items():
        if count is not None and count < least:
            raise UserError(f"{method}: {name} must be >= {least} tokens, got {count}.")


def share(trained: int, numerator: int, denominator: int) -> int:
    """A share of the trained length in whole tokens, rounded down, at least 1."""
    return max(1, trained * numerator // denominator)
