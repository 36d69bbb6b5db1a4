"""Which kind of a model's layers a method acts on, where layers of several kinds rotate by frequencies of their own.

Gemma 3 and its kin alternate layers that see a window (local) with layers that see everything (global). Only the global
ones need to reach further, so a method acts on them alone, unless windows are lifted; `all` and `local` are what a
checkpoint that was tuned otherwise, or an experiment, asks for.
"""

from typing import Literal, get_args

from harness.errors import unknown

Layers = Literal["global", "local", "all"]
LAYERS: tuple[Layers, ...] = get_args(Layers)


def layers(given: object) -> Layers | None:
    """The kind that a configuration names; None for null. Raises UserError."""
    if given is None:
        return None
    for known in LAYERS:
        if given == known:
            return known
    raise unknown("method.layers", str(given), LAYERS)


def acts_on(is_local: bool, lifted: bool, chosen: Layers | None) -> bool:
    """Whether a method acts on a layer. is_local: it sees a window; lifted: that window was lifted."""
    if chosen is None:
        return lifted or not is_local
    return chosen == "all" or is_local == (chosen == "local")
