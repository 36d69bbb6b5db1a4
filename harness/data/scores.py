"""What an evaluation finds out: the losses of one document, from which all rows are made."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.data.windows import Window


class Scores(NamedTuple):
    """The losses of one document: for each of its windows, one loss a scored token, float32 (num_scored,) in nats."""

    document: int
    windows: list[Window]
    nll: list[NDArray[np.float32]]


def cut(scored: Scores, ctx: int) -> Scores:
    """The scores of a pass over `ctx` tokens, from those of a longer single pass over the same document."""
    window, nll = scored.windows[0], scored.nll[0]
    shorter = window._replace(end=min(window.end, window.begin + ctx - window.bos))
    return Scores(scored.document, [shorter], [nll[: shorter.num_scored]])
