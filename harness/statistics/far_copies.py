"""Far copies: tokens that could be copied from far back and from nowhere near; needs no evaluator.

Token i is a far copy of order n where the n tokens before it stood in the document before, every such occurrence ended
more than `near` tokens back, and one of them was followed by the same token. That n-grams of the far context are what
helps: arXiv:2406.11238. Token ids alone say which they are, so the set is the same for every method and for every model
with one tokenizer; the control is the same set in windows that cannot reach back.
"""

from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.errors import UserError
from harness.statistics.metric import SHORT, Choice, Load, Metric
from harness.statistics.token_losses import Cell, Lacking, document_rows, named, of_each, read

Ids = NDArray[np.int64]


def _rows(load: Load, choice: Choice) -> pd.DataFrame:
    losses = read(load)

    def of(cell: Cell) -> pd.DataFrame:
        near = int(losses.short_of(cell)["ctx"]) if choice.near is None else choice.near
        own = losses.beside(cell)
        kept = own[copies(cell, own, choice.order, near)]
        if kept.empty:
            raise Lacking(
                f"There are no far copies of order {choice.order} in {named(cell)}: its documents are too short, or "
                "repeat nothing."
            )
        note = f"far copies of order {choice.order}, none within {near} tokens"
        return document_rows(cell, kept, note, nll_sum=kept["nll"], **{SHORT: kept["nll_short"]})

    return of_each(losses.long, of)


FAR_COPIES = Metric(name="far_copies", title="perplexity of far copies", rows=_rows, of_tokens=True)


def copies(cell: Cell, tokens: pd.DataFrame, order: int, near: int) -> NDArray[np.bool_]:
    """Which of a long cell's token rows are far copies, (num_tokens,). Raises UserError where ids were not kept."""
    if tokens["token_id"].isna().any():
        raise UserError(
            f"far_copies needs the number of every token, which {cell['model']} {cell['method']} ctx {cell['ctx']} of "
            "an older harness lacks; run it with force=true."
        )
    mask = np.zeros(len(tokens), bool)
    for _, own in tokens.reset_index(drop=True).groupby("document_index"):
        own = own.sort_values("token")
        ids = np.append(own["previous_id"].iloc[0], own["token_id"]).astype(np.int64)
        with_first = own["token"].iloc[0] == 0  # a BOS is before it, and it is scored itself
        found = _cached(ids[1:].tobytes() if with_first else ids.tobytes(), order, near)
        mask[own.index] = found if with_first else found[1:]
    return mask


@lru_cache(maxsize=256)  # the same documents come in every method's cell
def _cached(ids: bytes, order: int, near: int) -> NDArray[np.bool_]:
    return far_copies(np.frombuffer(ids, np.int64), order, near)


def far_copies(ids: Ids, order: int, near: int) -> NDArray[np.bool_]:
    """Which tokens of a document are far copies; ids, result: (num_tokens,). O(num_tokens log num_tokens)."""
    mask = np.zeros(len(ids), bool)
    if len(ids) <= order:
        return mask
    grams = np.zeros(len(ids) - order, np.int64)  # that of the tokens before token order + place, as a number
    for back in range(order):
        grams = _numbered(grams, ids[back : len(ids) - order + back])
    followed = _numbered(grams, ids[order:])
    last = _previous(grams)
    places = np.arange(len(grams))
    mask[order:] = (last >= 0) & (places - last > near) & (_previous(followed) >= 0)
    return mask


def _numbered(one: Ids, other: Ids) -> Ids:
    """Pairs of numbers as one number each, equal where they are; exact, unlike a hash."""
    _, small = np.unique(other, return_inverse=True)
    return np.unique(one * (small.max() + 1) + small, return_inverse=True)[1]


def _previous(numbers: Ids) -> Ids:
    """For each place the last one before it with the same number, or -1; (num_numbers,)."""
    order = np.argsort(numbers, kind="stable")
    same = numbers[order[1:]] == numbers[order[:-1]]
    found = np.full(len(numbers), -1)
    found[order[1:][same]] = order[:-1][same]
    return found
