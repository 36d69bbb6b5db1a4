"""Whether documents are as long as a cell's windows ask."""

from harness.data.documents import DocumentSet
from harness.errors import UserError


def check_lengths(documents: DocumentSet, ctx: int) -> None:
    """Raise UserError naming the document that is shorter than `ctx`, and the longest length available.

    Documents that are to be scored whole where they are shorter are never too short.
    """
    check_targets(documents, ctx)
    if documents.shorter == "whole":
        return
    shortest = min(documents.documents, key=lambda d: d.num_tokens)
    longest = max(documents.documents, key=lambda d: d.num_tokens)
    if longest.num_tokens < ctx:
        cut = documents.cut_at is not None and documents.cut_at < ctx
        remedy = "raise data.max_tokens and data.min_tokens" if cut else "take longer documents"
        raise UserError(
            f"data={documents.name}: no document is long enough for ctx={ctx}: the longest has "
            f"{longest.num_tokens} tokens ({documents.selection}); {remedy}, a shorter ctx, or data.shorter=whole."
        )
    if shortest.num_tokens < ctx:
        raise UserError(
            f"data={documents.name}: document {shortest.name!r} has {shortest.num_tokens} tokens, fewer than "
            f"ctx={ctx}; every ctx uses the same documents, so set data.min_tokens={ctx}, "
            "or data.shorter=whole."
        )


def check_targets(documents: DocumentSet, ctx: int) -> None:
    """Raise UserError naming the first document whose target does not fit into a window behind one other token."""
    for document in documents.documents:
        if document.num_targets is not None and document.num_targets > ctx - 1:
            raise UserError(
                f"data={documents.name}: the target of document {document.name!r} has {document.num_targets} tokens, "
                f"more than ctx - 1 = {ctx - 1}; take a longer ctx."
            )
        if document.num_targets == document.num_tokens:
            raise UserError(
                f"data={documents.name}: document {document.name!r} has no token before its target; give it a prompt."
            )
