"""PoSE: windows of the trained length in two pieces, with positions up to a longer one. arXiv:2309.10400.

A window begins where it does in plain training and is cut into two pieces; the second is taken from a random later
place of the text, and its positions are moved on by a random number. So a short window has distances of any size.
Deviation: the paper draws within a document; the text here is all books in a row, as it is in plain training.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.training.config import Pose

Whole = NDArray[np.int64]
STREAM = 1  # of random numbers, beside that of the windows' order


class Draws(NamedTuple):
    """Of each window, (count,) tokens each."""

    first: Whole  # of the first piece: 1 .. (ctx + 1) // 2
    later: Whole  # by which the second piece lies further on in the text: 0 .. (windows - 1) ctx
    skipped: Whole  # by which its positions are moved on: 0 .. target_ctx - ctx


def draws(pose: Pose, begins: Whole, ctx: int, num_tokens: int, seed: int) -> Draws:
    """Uniform draws for windows that begin at `begins` (count,) in a text of `num_tokens`, from the seed alone.

    A longer run begins with the draws of a shorter one. The second piece ends within the text.
    """
    assert pose.target_ctx is not None
    uniform = np.random.default_rng([seed, STREAM]).random((len(begins), 3))
    room = np.minimum(min((pose.windows - 1) * ctx, num_tokens), num_tokens - ctx - begins)
    most = np.stack([np.full_like(begins, (ctx + 1) // 2 - 1), room, np.full_like(begins, pose.target_ctx - ctx)], 1)
    drawn = (uniform * (most + 1)).astype(np.int64)
    return Draws(1 + drawn[:, 0], drawn[:, 1], drawn[:, 2])


def indices(drawn: Draws, ctx: int) -> tuple[Whole, Whole]:
    """Places in the text, from where the window begins, and positions of its tokens; (count, ctx) each."""
    place = np.arange(ctx)
    in_second = place >= drawn.first[:, None]
    return place + in_second * drawn.later[:, None], place + in_second * drawn.skipped[:, None]
