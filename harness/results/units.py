"""What the rows of each table are made from: the losses of a window, or those of a bin of positions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.data.documents import Document
from harness.data.scores import Compared, Scores
from harness.data.windows import Window


class ScoredWindow(NamedTuple):
    """One window of a document and its losses: a row of windows, or a row of tokens for each scored token."""

    document: Document
    document_index: int
    window: int  # which of the document's
    span: Window
    nll: NDArray[np.float32]  # (num_scored,), nats
    top1: NDArray[np.bool_] | None = None  # (num_scored,); None: unknown
    base: Compared | None = None

    @property
    def num_top1(self) -> int | None:
        """Scored tokens that were the likeliest."""
        return None if self.top1 is None else int(self.top1.sum())

    @property
    def kl(self) -> NDArray[np.float32] | None:
        """KL(base || this) of the scored tokens, nats, (num_scored,)."""
        return None if self.base is None else self.base.kl

    @property
    def same_top(self) -> NDArray[np.bool_] | None:
        """Whether the likeliest token is that of the base, (num_scored,)."""
        return None if self.base is None else self.base.same_top

    @property
    def base_nll(self) -> NDArray[np.float32] | None:
        """Losses under the base, nats, (num_scored,)."""
        return None if self.base is None else self.base.nll

    @property
    def delta_p(self) -> NDArray[np.float64] | None:
        """The probability of each scored token less that under the base, (num_scored,)."""
        return None if self.base is None else delta_p(self.nll, self.base)

    @property
    def token_ids(self) -> NDArray[np.int64]:
        """Of the scored tokens, (num_scored,)."""
        return self.document.ids[self.span.score_from : self.span.end]

    @property
    def previous_ids(self) -> NDArray[np.int64]:
        """Of the tokens before them in the document, (num_scored,), -1 before its first."""
        first, ids = self.span.score_from, self.document.ids
        return np.concatenate([ids[first - 1 : first] if first else [-1], ids[first : self.span.end - 1]])

    @property
    def byte_begins(self) -> NDArray[np.int64]:
        """Bytes of text before each scored token, (num_scored,)."""
        return self.document.byte_ends[self.span.score_from : self.span.end]

    @property
    def byte_ends(self) -> NDArray[np.int64]:
        """Bytes of text up to the end of each scored token, (num_scored,)."""
        return self.document.byte_ends[self.span.score_from + 1 : self.span.end + 1]

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Places of the scored tokens in the document, (num_scored,)."""
        return np.arange(self.span.score_from, self.span.end)

    @property
    def num_scored(self) -> int:
        """Tokens that have a loss."""
        return self.span.num_scored

    @property
    def nll_sum(self) -> float:
        """Nats, summed in float64."""
        return float(np.sum(self.nll, dtype=np.float64))

    @property
    def weight(self) -> float:
        """How many windows it stands for."""
        return self.span.weight

    @property
    def num_bytes(self) -> int:
        """Bytes of text that the scored tokens cover."""
        return int(self.document.byte_ends[self.span.end] - self.document.byte_ends[self.span.score_from])

    @property
    def num_words(self) -> int | None:
        """Words that begin in the scored tokens; None: not counted."""
        ends = self.document.word_ends
        return None if ends is None else int(ends[self.span.end] - ends[self.span.score_from])


class PositionBin(NamedTuple):
    """The losses of a document's windows of one weight at positions [position_begin, position_end): a row."""

    document: Document
    document_index: int
    position_begin: int
    position_end: int
    num_scored: int
    nll_sum: float  # nats, summed in float64
    weight: float


class DivergenceBin(NamedTuple):
    """What sets tokens apart from those of a base, in sums over the same bins as `PositionBin`: a row."""

    document: Document
    document_index: int
    position_begin: int
    position_end: int
    num_scored: int
    weight: float
    nll_sum: float  # nats, as all sums in float64
    base_nll_sum: float
    kl_sum: float
    same_top_sum: float
    delta_p_sum: float
    delta_p_squares: float

    @property
    def num_same_top(self) -> int:
        """Tokens at which both have one likeliest token."""
        return round(self.same_top_sum)


class Bin(NamedTuple):
    """Values of the tokens of one weight at positions [begin, end), summed."""

    begin: int
    end: int
    weight: float
    num_scored: int
    sums: list[float]


def scored_windows(scored: Scores, document: Document, ctx: int) -> list[ScoredWindow]:
    """The windows of one document, in their order."""
    top1 = scored.top1
    base = scored.base
    return [
        ScoredWindow(
            document,
            scored.document,
            i,
            span,
            nll,
            None if top1 is None else top1[i],
            None if base is None else base[i],
        )
        for i, (span, nll) in enumerate(zip(scored.windows, scored.nll, strict=True))
    ]


def position_edges(ctx: int) -> NDArray[np.int64]:
    """Edges (bins + 1,) of the position bins: half octaves 1, 2, 3, 4, 6, 8, 11, 16, ... up to `ctx`; 0 has no loss."""
    steps = np.arange(0, 2 * math.ceil(math.log2(ctx)) + 1)
    edges = np.unique(np.minimum(np.round(2 ** (steps / 2)).astype(np.int64), ctx))
    return edges if edges[-1] == ctx else np.append(edges, ctx)


def delta_p(nll: NDArray[np.float32], base: Compared) -> NDArray[np.float64]:
    """Probabilities exp(-nll) less those under the base, (num_scored,)."""
    return np.exp(-nll.astype(np.float64)) - np.exp(-base.nll.astype(np.float64))


def binned(scored: Scores, ctx: int, values: Sequence[Sequence[NDArray[np.generic]]]) -> list[Bin]:
    """Sums of values by position in the window (tokens that precede, BOS included), one a weight and bin with any.

    values: of each window some arrays (num_scored,), summed in float64. Windows that hold one token more than `ctx`
    have it in a bin of its own.
    """
    edges = position_edges(ctx)
    if any(w.end - w.begin + w.bos > ctx for w in scored.windows):
        edges = np.append(edges, ctx + 1)
    size = len(edges) - 1
    sums: dict[float, NDArray[np.float64]] = {}
    for w, arrays in zip(scored.windows, values, strict=True):
        into = sums.setdefault(w.weight, np.zeros((1 + len(arrays), size)))
        positions = np.arange(w.score_from, w.end) - w.begin + w.bos
        bins = np.searchsorted(edges, positions, side="right") - 1
        into[0] += np.bincount(bins, minlength=size)
        for row, array in zip(into[1:], arrays, strict=True):
            row += np.bincount(bins, weights=array.astype(np.float64), minlength=size)
    return [
        Bin(int(edges[i]), int(edges[i + 1]), weight, int(into[0, i]), [float(x) for x in into[1:, i]])
        for weight, into in sorted(sums.items())
        for i in range(size)
        if into[0, i]
    ]


def position_bins(scored: Scores, document: Document, ctx: int) -> list[PositionBin]:
    """Sums of losses by position in the window, one a weight and bin with any."""
    return [
        PositionBin(document, scored.document, one.begin, one.end, one.num_scored, one.sums[0], one.weight)
        for one in binned(scored, ctx, [[nll] for nll in scored.nll])
    ]


def divergence_bins(scored: Scores, document: Document, ctx: int) -> list[DivergenceBin]:
    """Sums of what sets the document's tokens apart from those of a base, in the bins of `position_bins`."""
    assert scored.base is not None, "asked for where there is a base"
    values = []
    for nll, base in zip(scored.nll, scored.base, strict=True):
        apart = delta_p(nll, base)
        values.append([nll, base.nll, base.kl, base.same_top, apart, apart**2])
    return [
        DivergenceBin(document, scored.document, one.begin, one.end, one.num_scored, one.weight, *one.sums)
        for one in binned(scored, ctx, values)
    ]
