"""LongPPL: perplexity over the tokens that a long context makes easy. Fang et al. 2024, arXiv:2410.23771.

A token is a key token of an evaluator where its loss falls by more than `min_gain` nats (the paper's alpha = 2) from
the short windows to the long one, and is smaller than `max_nll` nats there (-beta = 2). LongPPL is exp of the mean loss
of the scored model over key tokens, all documents together. None is among the first K tokens, which have no short
window. Whoever evaluates is favoured: its own losses on these tokens are small by choice.
"""

import pandas as pd

from harness.statistics.evaluators import Evaluators
from harness.statistics.metric import SHORT, Choice, Load, Metric
from harness.statistics.token_losses import Cell, Lacking, document_rows, named, of_each, read


def _rows(load: Load, choice: Choice) -> pd.DataFrame:
    losses = read(load)
    evaluators = Evaluators(losses if choice.judge is None else read(choice.judge), choice)
    note = f"key tokens by {evaluators.names}"

    def of(cell: Cell) -> pd.DataFrame:
        own = losses.beside(cell)
        kept = own[evaluators.key_tokens(cell, own)]
        if kept.empty:
            raise Lacking(
                f"There are no {note} in {named(cell)}: no token's loss falls by more than {choice.min_gain:g} nats to "
                f"less than {choice.max_nll:g}."
            )
        return document_rows(cell, kept, note, nll_sum=kept["nll"], **{SHORT: kept["nll_short"]})

    return of_each(losses.long, of)


LONGPPL = Metric(name="longppl", title="LongPPL", rows=_rows, of_tokens=True)
