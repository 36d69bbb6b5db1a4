"""The size of a sweep's grid, known before it is laid out."""

from collections.abc import Sequence
from itertools import islice
from math import prod

from hydra.core.override_parser.types import Override

from harness.errors import UserError

MOST_CELLS = 100_000


def check(overrides: Sequence[Override]) -> None:
    """Raise UserError for a key that a sweep gives no value, and for more cells than any sweep has."""
    counts = {}
    for override in overrides:
        if override.is_discrete_sweep():
            counts[str(override.input_line)] = sum(1 for _ in islice(override.sweep_iterator(), MOST_CELLS + 1))
    for given, count in counts.items():
        if not count:
            raise UserError(f"{given} gives no value to sweep over.")
    if prod(counts.values()) > MOST_CELLS:
        given = " ".join(g for g, count in counts.items() if count > 1)
        raise UserError(f"a sweep may have at most {MOST_CELLS} cells; more are asked for by {given}.")
