"""Whether two sets of documents have text in common."""

import numpy as np
from numpy.typing import NDArray

from harness.data.documents import DocumentSet
from harness.errors import UserError

RUN = 64  # tokens; a power of two
QUOTED = 0.05  # share of a document that may be quotation from others: a hundredth, among presidential messages
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def check_disjoint(search: DocumentSet, evaluation: DocumentSet) -> None:
    """Raise UserError where a search and an evaluation document are the same text, whole or in part.

    Fingerprints of a document's passages of RUN tokens are looked up among those at every token of the other, so that
    common text is found wherever it begins and however documents were cut; short quotations are let pass.
    """
    for theirs in evaluation.documents:
        for ours in search.documents:
            if max(_share(theirs.ids, ours.ids), _share(ours.ids, theirs.ids)) > QUOTED:
                raise UserError(
                    f"search document {ours.name!r} (search_data={search.name}: {search.selection}) and evaluation "
                    f"document {theirs.name!r} (data={evaluation.name}: {evaluation.selection}) have text in common; "
                    "they must be disjoint: set search_data.skip or name other documents."
                )


def _share(ids: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    """The share of a document's passages that also occur in another."""
    passages = fingerprints(ids)[::RUN]
    return (
        float(np.isin(passages, fingerprints(others)).mean()) if len(passages) else float(np.array_equal(ids, others))
    )


def fingerprints(ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A 64-bit hash of each run of RUN tokens of ids (tokens,), one for every token that such a run begins at."""
    hashes = (ids.astype(np.uint64) + np.uint64(1)) * MULTIPLIER
    width = 1
    while width < RUN and len(hashes) > width:
        left, right = hashes[:-width], hashes[width:]
        hashes = (left ^ (left >> np.uint64(29))) * MULTIPLIER + (right ^ (right >> np.uint64(32)))
        width *= 2
    return hashes if width == RUN else hashes[:0]
