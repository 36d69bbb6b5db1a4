"""What an evaluation finds out: the losses of one document, from which all rows are made."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.data.windows import Window


class Compared(NamedTuple):
    """What a base says of the same tokens of one window, each (num_scored,)."""

    nll: NDArray[np.float32]  # its losses, nats
    kl: NDArray[np.float32]  # KL(base || this), nats
    same_top: NDArray[np.bool_]  # one token is the likeliest of both

    def first(self, count: int) -> "Compared":
        """Of the first tokens alone."""
        return Compared(self.nll[:count], self.kl[:count], self.same_top[:count])


class Scores(NamedTuple):
    """The losses of one document: for each of its windows, one loss a scored token, float32 (num_scored,) in nats.

    `top1`: bool (num_scored,) for each, whether the token was the likeliest; none where nothing is known of it.
    """

    document: int
    windows: list[Window]
    nll: list[NDArray[np.float32]]
    top1: list[NDArray[np.bool_]] | None = None
    base: list[Compared] | None = None  # one a window; None: nothing was compared


def cut(scored: Scores, ctx: int) -> Scores:
    """The scores of a pass over `ctx` tokens, from those of a longer single pass over the same document."""
    window, nll = scored.windows[0], scored.nll[0]
    shorter = window._replace(end=min(window.end, window.begin + ctx - window.bos))
    top1 = None if scored.top1 is None else [scored.top1[0][: shorter.num_scored]]
    base = None if scored.base is None else [scored.base[0].first(shorter.num_scored)]
    return Scores(scored.document, [shorter], [nll[: shorter.num_scored]], top1, base)
