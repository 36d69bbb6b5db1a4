"""Whether the context is used: perplexity, LongPPL, far copies and gain of context side by side, one line a cell."""

import logging
from collections.abc import Callable

import pandas as pd

from harness.results.schema import cell_columns
from harness.statistics.far_copies import FAR_COPIES
from harness.statistics.gain import GAIN
from harness.statistics.in_context import IN_CONTEXT
from harness.statistics.longppl import LONGPPL
from harness.statistics.metric import PERPLEXITY, PLAIN, SHORT, Choice, Metric
from harness.statistics.summary import DEFAULT, Averaging, summarize
from harness.statistics.token_losses import Lacking

log = logging.getLogger(__name__)
SHOWN = (PERPLEXITY, LONGPPL, FAR_COPIES)  # each with what the same tokens cost in short windows
OF_A_METRIC = ("low", "high", "num_documents", "num_scored", "note", "short_windows")


def long_context(
    rows: pd.DataFrame,
    tokens: pd.DataFrame,
    positions: pd.DataFrame | None = None,
    choice: Choice = PLAIN,
    averaging: Averaging = DEFAULT,
) -> pd.DataFrame:
    """One line a cell of one pass that kept its tokens: what identifies it, and what says whether it uses its context.

    rows, tokens, positions: the windows, tokens and positions tables of results. Columns of each of `perplexity`,
    `longppl`, `far_copies`, `gain` and, where positions are given, `in_context_score`: its value, and behind its name
    `_low`, `_high` (NaN below five documents), `_num_documents`, `_num_scored` (tokens that it counts), `_note` (which
    these are, and by whom), `_short_windows` (what they cost in windows that cannot reach back). Perplexity is here of
    the tokens that the gain counts: those with a short window. Values that a cell lacks are NaN, with a warning.
    Raises UserError where there are no token rows, short windows or evaluators.
    """
    tables = {"windows": rows, "tokens": tokens}
    gained = GAIN.rows(tables.__getitem__, choice)
    gained = gained[gained["protocol"] == "single_pass"]
    made: list[tuple[Metric, Callable[[], pd.DataFrame]]] = [
        (PERPLEXITY, lambda: gained),
        (LONGPPL, lambda: LONGPPL.rows(tables.__getitem__, choice)),
        (FAR_COPIES, lambda: FAR_COPIES.rows(tables.__getitem__, choice)),
        (GAIN, lambda: gained.drop(columns=SHORT)),
    ]
    if positions is not None:
        single = positions[positions["cell_id"].isin(gained["cell_id"].unique())]
        made.append((IN_CONTEXT, lambda: IN_CONTEXT.rows(lambda table: single, choice)))
    parts = [_columns(metric, of, averaging) for metric, of in made]
    known = gained.drop_duplicates("cell_id")[cell_columns()]
    table = known.join(pd.concat(parts, axis=1), on="cell_id")
    order = ["model", "dataset", "ctx", "method", "method_params", "cell_id"]
    return table.sort_values(order, ignore_index=True, kind="stable")


def _columns(metric: Metric, rows: Callable[[], pd.DataFrame], averaging: Averaging) -> pd.DataFrame:
    """A metric's columns by cell_id; none where no cell has it."""
    try:
        summary = summarize(rows(), averaging, metric).set_index("cell_id")
    except Lacking as error:
        log.warning("no %s: %s", metric.title, error)
        return pd.DataFrame(columns=[metric.name, *(f"{metric.name}_{name}" for name in OF_A_METRIC)], dtype=float)
    named = [name for name in OF_A_METRIC if name in summary]
    return summary[[metric.name, *named]].rename(columns={name: f"{metric.name}_{name}" for name in named})


def is_evaluator(table: pd.DataFrame, choice: Choice) -> pd.Series:
    """Which cells may have chosen the key tokens themselves, and so are favoured by LongPPL."""
    names = pd.DataFrame({"a": table["method"], "b": table["model"], "c": table["model"] + "/" + table["method"]})
    return names.isin(choice.evaluators).any(axis=1)
