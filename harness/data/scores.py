"""What an evaluation finds out: the losses of one document, from which all rows are made."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.data.windows import Window


class Scores(NamedTuple):
    """The losses of one document: for each of its windows, one loss a scored token, float32 (num_scored,) in nats.

    `top1`: bool (num_scored,) for each, whether the token was the likeliest; none where nothing is known of it.
    """

    document: int
    windows: list[Window]
    nll: list[NDArray[np.float32]]
    top1: list[NDArray[np.bool_]] | None = None


def cut(scored: Scores, ctx: int) -> Scores:
    """The scores of a pass over `ctx` tokens, from those of a longer single pass over the same document."""
    window, nll = scored.windows[0], scored.nll[0]
    shorter = window._replace(end=min(window.end, window.begin + ctx - window.bos))
    top1 = None if scored.top1 is None else [scored.top1[0][: shorter.num_scored]]
    return Scores(scored.document, [shorter], [nll[: shorter.num_scored]], top1)
