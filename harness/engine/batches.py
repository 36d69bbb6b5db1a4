"""From documents to batches: which windows a document has, who computes them, and which run together."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.data.documents import Document
from harness.data.windows import Protocol, Shorter, Window, plan


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


def plans(
    documents: Sequence[Document], ctx: int, protocol: Protocol, seed: int, shorter: Shorter = "error"
) -> list[list[Window]]:
    """The windows of every document; each document draws its own sample where windows are sampled."""
    return [plan(d.num_tokens, ctx, protocol, _mix(seed, i), shorter, d.num_targets) for i, d in enumerate(documents)]


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


def token_ids(batch: Sequence[Job], documents: Sequence[Document], bos_token_id: int | None) -> NDArray[np.int64]:
    """What the model sees of the windows of a batch, (batch, length)."""
    ids = np.empty((len(batch), batch[0].length), dtype=np.int64)
    for row, job in zip(ids, batch, strict=True):
        row[job.span.bos :] = documents[job.document].ids[job.span.begin : job.span.end]
        if job.span.bos:
            assert bos_token_id is not None
            row[0] = bos_token_id
    return ids
