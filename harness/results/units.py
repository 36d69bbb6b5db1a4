"""What the rows of each table are made from: the losses of a window, or those of a bin of positions."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.data.documents import Document
from harness.data.scores import Scores
from harness.data.windows import Window


class ScoredWindow(NamedTuple):
    """One window of a document and its losses: a row of windows, or a row of tokens for each scored token."""

    document: Document
    document_index: int
    window: int  # which of the document's
    span: Window
    nll: NDArray[np.float32]  # (num_scored,), nats
    top1: NDArray[np.bool_] | None = None  # (num_scored,); None: unknown

    @property
    def num_top1(self) -> int | None:
        """Scored tokens that were the likeliest."""
        return None if self.top1 is None else int(self.top1.sum())

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


def scored_windows(scored: Scores, document: Document, ctx: int) -> list[ScoredWindow]:
    """The windows of one document, in their order."""
    top1 = scored.top1
    return [
        ScoredWindow(document, scored.document, i, span, nll, None if top1 is None else top1[i])
        for i, (span, nll) in enumerate(zip(scored.windows, scored.nll, strict=True))
    ]


def position_edges(ctx: int) -> NDArray[np.int64]:
    """Edges (bins + 1,) of the position bins: half octaves 1, 2, 3, 4, 6, 8, 11, 16, ... up to `ctx`; 0 has no loss."""
    steps = np.arange(0, 2 * math.ceil(math.log2(ctx)) + 1)
    edges = np.unique(np.minimum(np.round(2 ** (steps / 2)).astype(np.int64), ctx))
    return edges if edges[-1] == ctx else np.append(edges, ctx)


def position_bins(scored: Scores, document: Document, ctx: int) -> list[PositionBin]:
    """Sums of losses by position in the window (tokens that precede, BOS included), one a weight and bin with any.

    Windows that hold one token more than `ctx` have it in a bin of its own.
    """
    edges = position_edges(ctx)
    if any(w.end - w.begin + w.bos > ctx for w in scored.windows):
        edges = np.append(edges, ctx + 1)
    sums: dict[float, tuple[NDArray[np.float64], NDArray[np.int64]]] = {}
    for w, nll in zip(scored.windows, scored.nll, strict=True):
        nll_sum, count = sums.setdefault(w.weight, (np.zeros(len(edges) - 1), np.zeros(len(edges) - 1, np.int64)))
        positions = np.arange(w.score_from, w.end) - w.begin + w.bos
        bins = np.searchsorted(edges, positions, side="right") - 1
        nll_sum += np.bincount(bins, weights=nll.astype(np.float64), minlength=len(nll_sum))
        count += np.bincount(bins, minlength=len(count))
    return [
        PositionBin(
            document, scored.document, int(edges[i]), int(edges[i + 1]), int(count[i]), float(nll_sum[i]), weight
        )
        for weight, (nll_sum, count) in sorted(sums.items())
        for i in range(len(edges) - 1)
        if count[i]
    ]
