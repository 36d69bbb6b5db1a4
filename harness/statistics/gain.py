"""Gain of context: by what factor a longer context lowers the perplexity of the same tokens; 1: it gave nothing.

    gain = exp(mean loss with the short context - mean loss with the long one)

Cells of `fixed_targets`: the short context is a line's shortest length. Cells of one pass: the short windows of the
same tokens (`token_losses`), those from the K-th on.
"""

import logging

import pandas as pd

from harness.errors import UserError
from harness.statistics.lines import PANEL, label
from harness.statistics.lines import tokens as as_length
from harness.statistics.metric import SHORT, Choice, Load, Metric
from harness.statistics.paired import cell_table
from harness.statistics.token_losses import Cell, document_rows, of_each, read

log = logging.getLogger(__name__)
DOCUMENT = ["document_index", "document"]


def _rows(load: Load, choice: Choice) -> pd.DataFrame:
    windows = load("windows")
    targets, has_passes = windows[windows["protocol"] == "fixed_targets"], (windows["protocol"] == "single_pass").any()
    fixed = _of_lengths(targets)
    if not fixed and not targets.empty and not has_passes:
        length = as_length(targets["ctx"].iloc[0])
        raise UserError(f"gain needs at least two lengths of protocol=fixed_targets, got ctx {length} alone.")
    try:
        passes = _of_passes(load)
    except UserError as error:
        if not fixed:
            raise
        if has_passes:
            log.warning("gain of single passes is left out: %s", error)
        return pd.concat(fixed, ignore_index=True)
    return pd.concat([*fixed, passes], ignore_index=True)


GAIN = Metric(
    name="gain",
    title="gain of context",
    rows=_rows,
    total="nll_gained",
    higher_is_better=True,
    even=1.0,
    of_tokens=True,
)


def _of_passes(load: Load) -> pd.DataFrame:
    """Single passes against their short windows."""
    losses = read(load)

    def of(cell: Cell) -> pd.DataFrame:
        pair = losses.pair(cell)
        own = pair.losses
        note = f"tokens behind {pair.before} to {pair.short['ctx'] - 1} others in short windows"
        sums = {"nll_gained": own["nll_short"] - own["nll"], "nll_sum": own["nll"], SHORT: own["nll_short"]}
        return document_rows(cell, own, note, **sums)

    return of_each(losses.long, of)


def _of_lengths(fixed: pd.DataFrame) -> list[pd.DataFrame]:
    """Longer windows that end with the same targets against a line's shortest ones."""
    rows: dict[str, pd.DataFrame] = {}
    by_id = dict(list(fixed.groupby("cell_id")))
    for _, line in label(cell_table(fixed)).groupby([*PANEL, "curve"], dropna=False):
        shortest = line.sort_values("ctx").iloc[0]
        before = by_id[shortest["cell_id"]][[*DOCUMENT, "nll_sum", "num_scored"]]
        for cell in line[line["ctx"] > shortest["ctx"]]["cell_id"]:
            own = by_id[cell].merge(before, on=[*DOCUMENT, "num_scored"], suffixes=("", "_short"))
            if len(own) != len(by_id[cell]):
                raise UserError(
                    f"gain needs the same documents at every length; ctx {as_length(shortest['ctx'])} and "
                    f"{as_length(by_id[cell]['ctx'].iloc[0])} of {line['curve'].iloc[0]} have others."
                )
            note = f"last tokens of documents, against a context of {as_length(shortest['ctx'])}"
            own = own.rename(columns={"nll_sum_short": SHORT})
            rows[cell] = own.assign(nll_gained=own[SHORT] - own["nll_sum"], note=note)
    return list(rows.values())
