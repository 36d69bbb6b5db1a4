"""Cells and figures from Python: the same cells and files as the command line, tables and figures as values."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Setting = str | int | float | bool | None


def run(*overrides: str, **settings: Setting | list[Setting]) -> "pd.DataFrame":
    """Compute what is missing of `python -m harness -m ...`, and return its table, one line a cell.

    settings: what stands behind the command, a list where it has several choices: `run(method=["none", "yarn"],
    ctx=[512, 2048])`; keys with a point as text, `run("data.num_documents=6", ...)`, or `**{"data.num_documents": 6}`.
    The table is that of `harness.statistics.decision.decide`: what identifies a cell, perplexity with its interval, the
    paired ratio to the line `none`, the effective context length. Empty with `dry_run=True`.

    Raises UserError for a mistake, before any cell is computed, and where cells failed, after all others are there.
    """
    import pandas as pd

    from harness import cli
    from harness.config.checks import folder
    from harness.results.selection import Selection, load
    from harness.statistics.decision import decide

    given = [*overrides, *(f"{key}={_choices(value)}" for key, value in settings.items())]
    try:
        composed = cli.run_sweep(given)
    except SystemExit as end:
        raise UserError("not all cells have a result; those without are listed above, with what failed.") from end
    if settings.get("dry_run") or "dry_run=true" in overrides:
        return pd.DataFrame()
    named = settings.get("results_dir") or next(
        (word.partition("=")[2] for word in reversed(overrides) if word.startswith("results_dir=")), None
    )
    results = folder({"results_dir": named or composed["results_dir"]}, "results_dir")
    return decide(load(results, selection=Selection(last=True)))


def figure(
    name: str = "perplexity",
    results: str | Path = "results",
    *,
    where: Mapping[str, object] | None = None,
    last: bool = False,
    metric: str = "perplexity",
    baseline: str = "none",
    **choice: Any,
) -> "Figure":
    """A figure of finished cells, as `python -m harness.plot` draws it, for a notebook to show or to change.

    name: of `harness.figures.FIGURES`; where: columns and their values; last: only the cells of the last command;
    choice: what the metric leaves open (`harness.statistics.metric.Choice`). Raises UserError.
    """
    from functools import partial

    from harness.errors import unknown
    from harness.figures import FIGURES
    from harness.figures.source import Source
    from harness.results.selection import Selection, load
    from harness.statistics import metrics
    from harness.statistics.metric import Choice

    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    read = partial(load, results, selection=Selection(where or {}, last))
    return FIGURES[name].figure(Source(read, baseline=baseline, metric=metrics.named(metric), choice=Choice(**choice)))


def _choices(value: object) -> str:
    return ",".join(map(_word, value)) if isinstance(value, list | tuple) else _word(value)


def _word(value: object) -> str:
    """A value as Hydra's grammar of overrides takes it: text in quotes, so that nothing in it is read as more."""
    if isinstance(value, str) and not value.replace("_", "").replace("-", "").isalnum():
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return value if isinstance(value, str) else json.dumps(value)
