"""An engine's losses beside ours, by position: which positions an engine reads otherwise.

    python benchmarks/engines_by_position.py OURS ENGINE [ENGINE ...]

Results folders of the same cells with save_tokens=true, one cell each. Prints a line a bin of positions: the mean loss
computed here, and for every engine its mean less ours and the largest difference at one token, in nats.
"""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from harness.results import store

EDGES = (0, 64, 256, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
PLACE = ["document_index", "window", "token"]


def losses(folder: str) -> pd.Series:
    """By document, window and token; of one cell, in windows that begin with their document."""
    rows = store.load_results(folder, "tokens")
    if rows["cell_id"].nunique() != 1:
        raise SystemExit(f"{folder} must hold one cell, got {rows['cell_id'].nunique()}.")
    return rows.set_index(PLACE)["nll"].astype(np.float64).sort_index()


def table(ours: pd.Series, theirs: dict[str, pd.Series]) -> list[str]:
    """The lines of a Markdown table."""
    for name, other in theirs.items():
        if not other.index.equals(ours.index):
            raise SystemExit(f"{name} scored other tokens.")
    at = ours.index.get_level_values("token")
    lines = [
        "| positions | tokens | ours | " + " | ".join(f"{name}: mean, largest" for name in theirs) + " |",
        "| --- | --- | --- |" + " --- |" * len(theirs),
    ]
    for low, high in [*pairwise(EDGES), (0, EDGES[-1])]:
        own = (at >= low) & (at < high)
        if own.any():
            apart = [other[own] - ours[own] for other in theirs.values()]
            cells = [f"{d.mean():+.1e}, {d.abs().max():.1e}" for d in apart]
            label = "all" if high == EDGES[-1] and low == 0 else f"{low} to {min(high, at.max() + 1) - 1}"
            lines.append(f"| {label} | {own.sum()} | {ours[own].mean():.4f} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Read, compare, print."""
    first, *others = sys.argv[1:]
    print("\n".join(table(losses(first), {Path(other).name: losses(other) for other in others})))


if __name__ == "__main__":
    main()
