"""From batches to the losses of documents."""

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.documents import Document
from harness.data.scores import Compared, Scores
from harness.data.windows import Window
from harness.engine.batches import Job, batches, token_ids

# (ids (batch, L), score_from) -> (batch, L - score_from), or (batch, L - score_from, n) with n = 2: top1 beside the
# losses, n = 5: what harness.engine.divergence makes
NllFunction = Callable[[torch.Tensor, int], torch.Tensor]


WHAT = ("loss", "top1", "loss under the base", "KL")


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

    Raises NonFiniteLoss naming document and window. The losses of a batch are fetched while the next one runs, those of
    a window beyond `tokens_per_batch` before: the next may take long.
    """
    missing = {i: len(w) for i, w in enumerate(planned) if i not in finished}
    losses: dict[int, dict[int, NDArray[np.float32]]] = {i: {} for i in missing}
    todo = [b for b in batches(planned, tokens_per_batch) if any(job.document in missing for job in b)]
    running: tuple[list[Job], torch.Tensor] | None = None

    def complete(batch: list[Job], nll: torch.Tensor) -> Iterator[Scores]:
        for job, values in fetched(batch, nll, documents):
            if job.document not in missing:
                continue
            losses[job.document][job.window] = values
            progress(job.length)
            if len(losses[job.document]) == missing[job.document]:
                done = losses.pop(job.document)
                yield _scores(job.document, planned[job.document], [done[i] for i in sorted(done)])

    for batch in todo:
        if running is not None and running[0][0].length > tokens_per_batch:
            yield from complete(*running)
            running = None
        first = min(job.score_from for job in batch)
        ids = torch.from_numpy(token_ids(batch, documents, bos_token_id)).to(device, non_blocking=True)
        started = (batch, nll(ids, first))
        if running is not None:
            yield from complete(*running)
        running = started
    if running is not None:
        yield from complete(*running)


def _scores(document: int, windows: Sequence[Window], values: list[NDArray[np.float32]]) -> Scores:
    """The scores of a document from what `fetched` gave for each of its windows."""
    if values[0].ndim == 1:
        return Scores(document, list(windows), values)
    nll, top1 = [np.ascontiguousarray(v[:, 0]) for v in values], [v[:, 1] > 0 for v in values]
    if values[0].shape[1] == 2:
        return Scores(document, list(windows), nll, top1)
    base = [Compared(np.ascontiguousarray(v[:, 2]), np.ascontiguousarray(v[:, 3]), v[:, 4] > 0) for v in values]
    return Scores(document, list(windows), nll, top1, base)


def fetched(
    batch: Sequence[Job], losses: torch.Tensor, documents: Sequence[Document]
) -> Iterator[tuple[Job, NDArray[np.float32]]]:
    """The losses (batch, scored) of a batch, one float32 array (num_scored,) a window; raises NonFiniteLoss.

    Of losses with more beside them (batch, scored, n) an array (num_scored, n).
    """
    values = losses.float().cpu().numpy()
    for job, row in zip(batch, values, strict=True):
        own = row[len(row) - job.span.num_scored :]
        columns = own.reshape(len(own), -1).T
        for what, values in zip(WHAT, columns, strict=False):
            _check_finite(what, values, job, documents[job.document])
        yield job, own


def _check_finite(what: str, values: NDArray[np.float32], job: Job, document: Document) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise NonFiniteLoss(
            f"{what} {values[bad[0]]} at token {job.span.score_from + bad[0]} of document {document.name!r}, "
            f"window {job.window} [{job.span.begin}, {job.span.end})."
        )
