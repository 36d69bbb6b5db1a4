"""From documents and windows to losses: batches, and the rows of a cell's tables."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from harness.data.documents import Document
from harness.data.windows import Protocol, Window, plan

NllFunction = Callable[[torch.Tensor, int], torch.Tensor]  # (ids (batch, L), score_from) -> (batch, L - score_from)


class Job(NamedTuple):
    """One window of one document."""

    document: int
    window: int
    span: Window

    @property
    def length(self) -> int:
        """Tokens that the model sees, BOS included."""
        return self.span.end - self.span.begin + self.span.bos

    @property
    def score_from(self) -> int:
        """First scored position inside the window."""
        return self.span.score_from - self.span.begin + self.span.bos


class Scores(NamedTuple):
    """The losses of one document: for each of its windows, one loss a scored token."""

    document: int
    windows: list[Window]
    nll: list[NDArray[np.float32]]


class NonFiniteLoss(ArithmeticError):
    """A loss that is NaN or infinite: an error, never a number."""


def plans(documents: Sequence[Document], ctx: int, protocol: Protocol, seed: int) -> list[list[Window]]:
    """The windows of every document; each document draws its own sample where windows are sampled."""
    return [plan(d.num_tokens, ctx, protocol, seed=_mix(seed, i)) for i, d in enumerate(documents)]


def _mix(seed: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


def num_tokens(windows: Sequence[Window]) -> int:
    """Tokens that the model sees in these windows, BOS included."""
    return sum(w.end - w.begin + w.bos for w in windows)


def shares(lengths: Sequence[int], count: int) -> list[set[int]]:
    """Documents of these lengths (tokens) dealt to `count` processes: the longest first, to whoever has least."""
    dealt: list[set[int]] = [set() for _ in range(count)]
    loads = [0] * count
    for document in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        least = loads.index(min(loads))
        dealt[least].add(document)
        loads[least] += lengths[document]
    return dealt


def batches(planned: Sequence[Sequence[Window]], tokens_per_batch: int) -> list[list[Job]]:
    """Windows of one length and about as many scored tokens, together up to a budget of tokens.

    A function of the plan and the budget alone, so that a resumed cell runs the same batches. A window that scores
    many tokens is not mixed with one that scores few: the batch would compute the logits of the many for both. They
    come in the order of the first document of each, so that every document is complete as early as it can be.
    """
    full: list[list[Job]] = []
    open_: dict[tuple[int, int], list[Job]] = {}
    for document, windows in enumerate(planned):
        for index, span in enumerate(windows):
            job = Job(document, index, span)
            key = (job.length, math.ceil(math.log2(span.num_scored)))
            group = open_.setdefault(key, [])
            group.append(job)
            if (len(group) + 1) * job.length > tokens_per_batch:
                full.append(open_.pop(key))
    return sorted([*full, *open_.values()], key=lambda batch: batch[0].document)


def scores(
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


def token_ids(batch: Sequence[Job], documents: Sequence[Document], bos_token_id: int | None) -> NDArray[np.int64]:
    """What the model sees of the windows of a batch, (batch, length)."""
    ids = np.empty((len(batch), batch[0].length), dtype=np.int64)
    for row, job in zip(ids, batch, strict=True):
        row[job.span.bos :] = documents[job.document].ids[job.span.begin : job.span.end]
        if job.span.bos:
            assert bos_token_id is not None
            row[0] = bos_token_id
    return ids


def fetched(
    batch: Sequence[Job], losses: torch.Tensor, documents: Sequence[Document]
) -> Iterator[tuple[Job, NDArray[np.float32]]]:
    """The losses (batch, scored) of a batch, one array a window; raises NonFiniteLoss."""
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


def cut(scored: Scores, ctx: int) -> Scores:
    """The scores of a pass over `ctx` tokens, from those of a longer single pass over the same document."""
    window, nll = scored.windows[0], scored.nll[0]
    shorter = window._replace(end=window.begin + ctx - window.bos)
    return Scores(scored.document, [shorter], [nll[: shorter.num_scored]])


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
