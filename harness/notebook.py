"""Cells and figures from Python: the same cells and files as the command line, tables and figures as values."""

import json
import os
from collections.abc import Mapping
from dataclasses import fields
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

    if not all(isinstance(word, str) for word in overrides):
        raise UserError(f"run takes overrides as text, as 'ctx=512', and settings by name, got {overrides!r}.")
    if isinstance(settings.get("results_dir"), list | tuple):
        raise UserError(f"results_dir must be one directory, whose table is returned, got {settings['results_dir']!r}.")
    given = [*overrides, *(f"{key}={_choices(key, value)}" for key, value in settings.items())]
    try:
        composed = cli.run_sweep(given)
    except SystemExit as end:
        raise UserError("not all cells have a result; those without are listed above, with what failed.") from end
    if settings.get("dry_run") or "dry_run=true" in overrides:
        return pd.DataFrame()
    named = settings.get("results_dir") or next(
        (word.partition("=")[2] for word in reversed(overrides) if word.startswith("results_dir=")), None
    )
    results = folder({"results_dir": str(named or composed["results_dir"])}, "results_dir")
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
        raise unknown("figure", str(name), FIGURES)
    if not isinstance(results, str | os.PathLike):
        raise UserError(f"results must be a directory or a file, got {results!r:.200}.")
    if where is not None and not isinstance(where, Mapping):
        raise UserError(f"where must have columns and their values, as {{'method': 'yarn'}}, got {where!r:.200}.")
    known = [field.name for field in fields(Choice)]
    for key in choice:
        if key not in known:
            raise unknown("choice", key, known)
    read = partial(load, results, selection=Selection(where or {}, bool(last)))
    chosen, shown = Choice(**choice), metrics.named(str(metric))
    return FIGURES[name].figure(Source(read, baseline=str(baseline), metric=shown, choice=chosen))


def _choices(key: str, value: object) -> str:
    """The choices of a key behind its `=`; arrays and ranges are lists of them."""
    if hasattr(value, "tolist"):  # of numpy, pandas, torch
        value = value.tolist()
    if not isinstance(value, list | tuple | range):
        return _word(key, value)
    if not len(value):
        raise UserError(f"{key} needs at least one value, got {value!r}.")
    return ",".join(_word(key, one) for one in value)


def _word(key: str, value: object) -> str:
    """A value as Hydra's grammar of overrides takes it: text in quotes, so that nothing in it is read as more."""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(value, str) and not value.replace("_", "").replace("-", "").isalnum():
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RecursionError):
        raise UserError(f"{key} must be text, numbers, true, false or lists of them, got {value!r:.200}.") from None
