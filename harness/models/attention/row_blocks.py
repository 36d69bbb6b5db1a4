"""Which rows of the score matrix are computed together."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Edges = tuple[NDArray[np.int64], NDArray[np.int64]]  # first key of each row of a region, one past its last, (length,)


def even(length: int, rows: int) -> list[slice]:
    """Blocks of so many rows, the last of what remains."""
    return [slice(begin, min(begin + rows, length)) for begin in range(0, length, rows)]


def straight(edges: Sequence[Edges], rows: int, most: int) -> list[slice] | None:
    """Blocks of at most `rows` rows in which each region's edges stay or move by one key a row; None: over `most`.

    There no region needs a mask: it is a rectangle, a triangle, both, or a band.
    """
    length = len(edges[0][0])
    if not all(_is_even(*pair) for pair in edges):
        return None
    cuts = sorted({0, length, *range(0, length, rows)}.union(*(_corners(*pair) for pair in edges)))
    if len(cuts) > most:
        return None
    return [slice(begin, end) for begin, end in pairwise(cuts)]


def _is_even(begin: NDArray[np.int64], end: NDArray[np.int64]) -> bool:
    """Whether edges that do not move by 0 or 1 keys do so in single jumps."""
    seen = end > begin
    for edge in (begin, end):
        jumps = ~np.isin(np.diff(edge), (0, 1)) & seen[1:] & seen[:-1]
        if (jumps[1:] & jumps[:-1]).any():
            return False
    return True


def _corners(begin: NDArray[np.int64], end: NDArray[np.int64]) -> set[int]:
    """Rows at which a region begins or ends, or an edge changes how it moves."""
    seen = end > begin
    flips = set((np.flatnonzero(np.diff(seen)) + 1).tolist())
    found = set(flips)
    for edge in (begin, end):
        moves = np.where(seen[1:] & seen[:-1], np.diff(edge), 0)  # moves[i]: from row i to row i + 1
        reached = (np.flatnonzero(np.diff(moves)) + 2).tolist()  # by another move than the row before
        start = 0
        for row in sorted(flips.union(reached)):
            if row in flips or row >= start + 2:  # the first move of a block is what the others follow
                found.add(row)
                start = row
    return found
