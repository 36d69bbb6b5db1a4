"""From batches to the losses of documents, and the rows of a cell's tables."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from harness.data.documents import Document
from harness.data.scores import Scores
from harness.data.windows import Window
from harness.engine.batches import Job, batches, token_ids

NllFunction = Callable[[torch.Tensor, int], torch.Tensor]  # (ids (batch, L), score_from) -> (batch, L - score_from)


class NonFiniteLoss(ArithmeticError):
    """A loss that is NaN or infinite: an error, never a number."""


def evaluate(
    documents: Sequence[Document],
    planned: Sequence[Sequence[Window]],
    nll: NllFunction,
    tokens_per_batch: int,
    *,
    bos_token_id: int | None = None,
    device: torch.device | str = "cpu",
    finished: Collection[int] = (),
    progress: Callable[[int], object] = lambda tokens: None,
) -> Iterator[Scores]:
    """Losses of every document that is not in `finished`, each as soon as its last window is done.

    Raises NonFiniteLoss naming document and window. The losses of a batch are fetched while the next one runs.
    """
    missing = {i: len(w) for i, w in enumerate(planned) if i not in finished}
    losses: dict[int, dict[int, NDArray[np.float32]]] = {i: {} for i in missing}
    todo = [b for b in batches(planned, tokens_per_batch) if any(job.document in missing for job in b)]
    running: tuple[list[Job], torch.Tensor] | None = None
    for batch in [*todo, None]:
        started = None
        if batch is not None:
            first = min(job.score_from for job in batch)
            ids = torch.from_numpy(token_ids(batch, documents, bos_token_id)).to(device, non_blocking=True)
            started = (batch, nll(ids, first))
        if running is not None:
            for job, values in fetched(*running, documents):
                if job.document not in missing:
                    continue
                losses[job.document][job.window] = values
                progress(job.length)
                if len(losses[job.document]) == missing[job.document]:
                    done = losses.pop(job.document)
                    yield Scores(job.document, list(planned[job.document]), [done[i] for i in sorted(done)])
        running = started


def fetched(
    batch: Sequence[Job], losses: torch.Tensor, documents: Sequence[Document]
) -> Iterator[tuple[Job, NDArray[np.float32]]]:
    """The losses (batch, scored) of a batch, one float32 array (num_scored,) a window; raises NonFiniteLoss."""
    values = losses.float().cpu().numpy()
    for job, row in zip(batch, values, strict=True):
        own = row[len(row) - job.span.num_scored :]
        _check_finite(own, job, documents[job.document])
        yield job, own


def _check_finite(values: NDArray[np.float32], job: Job, document: Document) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise NonFiniteLoss(
            f"loss {values[bad[0]]} at token {job.span.score_from + bad[0]} of document {document.name!r}, "
            f"window {job.window} [{job.span.begin}, {job.span.end})."
        )


# Rows ----------------------------------------------------------------------------------------------------------------


def window_rows(scored: Scores, document: Document) -> pd.DataFrame:
    """One row a window: where it lies, what it scored, the sum of its losses in float64 and the bytes it scored."""
    return pd.DataFrame(
        [
            {
                "document": document.name,
                "document_index": scored.document,
                "window": index,
                "begin": w.begin,
                "end": w.end,
                "score_from": w.score_from,
                "bos": w.bos,
                "num_scored": w.num_scored,
                "nll_sum": float(np.sum(nll, dtype=np.float64)),
                "weight": w.weight,
                "num_bytes": int(document.byte_ends[w.end] - document.byte_ends[w.score_from]),
            }
            for index, (w, nll) in enumerate(zip(scored.windows, scored.nll, strict=True))
        ]
    )


def position_edges(ctx: int) -> NDArray[np.int64]:
    """Edges of the position bins: half octaves 1, 2, 3, 4, 6, 8, 11, 16, ... up to `ctx`; position 0 has no loss."""
    steps = np.arange(0, 2 * math.ceil(math.log2(ctx)) + 1)
    edges = np.unique(np.minimum(np.round(2 ** (steps / 2)).astype(np.int64), ctx))
    return edges if edges[-1] == ctx else np.append(edges, ctx)


def position_rows(scored: Scores, document: Document, ctx: int) -> pd.DataFrame:
    """Sums of losses by position in the window (tokens that precede, BOS included), one row a bin and weight."""
    edges = position_edges(ctx)
    sums: dict[float, tuple[NDArray[np.float64], NDArray[np.int64]]] = {}
    for w, nll in zip(scored.windows, scored.nll, strict=True):
        nll_sum, count = sums.setdefault(w.weight, (np.zeros(len(edges) - 1), np.zeros(len(edges) - 1, np.int64)))
        positions = np.arange(w.score_from, w.end) - w.begin + w.bos
        bins = np.searchsorted(edges, positions, side="right") - 1
        nll_sum += np.bincount(bins, weights=nll.astype(np.float64), minlength=len(nll_sum))
        count += np.bincount(bins, minlength=len(count))
    return pd.DataFrame(
        [
            {
                "document": document.name,
                "document_index": scored.document,
                "position_begin": int(edges[i]),
                "position_end": int(edges[i + 1]),
                "num_scored": int(count[i]),
                "nll_sum": float(nll_sum[i]),
                "weight": weight,
            }
            for weight, (nll_sum, count) in sorted(sums.items())
            for i in range(len(edges) - 1)
            if count[i]
        ]
    )


def token_rows(scored: Scores, document: Document) -> pd.DataFrame:
    """One row a scored token: its index in the document and its loss."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "document": document.name,
                    "document_index": scored.document,
                    "window": index,
                    "token": np.arange(w.score_from, w.end),
                    "nll": nll.astype(np.float32),
                }
            )
            for index, (w, nll) in enumerate(zip(scored.windows, scored.nll, strict=True))
        ],
        ignore_index=True,
    )
