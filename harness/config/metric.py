"""The choice of a metric where a user types it: options of compare and report, keys of conf/plot.yaml."""

import argparse
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from harness.results.selection import Selection
    from harness.statistics.metric import Choice, Load, Metric


def add_metric(parser: argparse.ArgumentParser) -> None:
    """Put the options of a metric on a command line."""
    group = parser.add_argument_group("metric")
    group.add_argument("--metric", default="perplexity", help="what is shown (default: %(default)s)")
    group.add_argument(
        "--evaluator", default="dca,yarn", help="longppl: who chooses the key tokens, METHOD, MODEL or MODEL/METHOD, "
        "several by commas (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--evaluator-results", type=Path, help="longppl: where the evaluators' cells lie, if elsewhere")
    group.add_argument(
        "--together", default="union", help="longppl: union or intersection of several evaluators' key tokens"
    )
    group.add_argument("--order", type=int, default=2, help="far_copies: tokens that stood before (default: 2)")
    group.add_argument(
        "--near", type=int, help="far_copies: tokens within which none stood (default: length of the short windows)"
    )


def metric_rows(
    metric: "Metric", choice: "Choice", results: Path, selection: "Selection", around: "Load"
) -> "pd.DataFrame":
    """The rows of a metric that belong to a selection; `around`: the tables of `selection.around`. Raises UserError."""
    from harness.results.selection import fitting, load

    if metric.of_tokens:
        return fitting(metric.rows(around, choice), results, "windows", selection)
    return metric.rows(partial(load, results, selection=selection), choice)


def chosen_metric(values: Mapping[str, Any]) -> "tuple[Metric, Choice]":
    """The metric that the options or keys name, and how it chooses. Raises UserError."""
    from harness.results import store
    from harness.statistics import metrics
    from harness.statistics.metric import Choice

    evaluators = values["evaluator"]
    if isinstance(evaluators, str):
        evaluators = [name.strip() for name in evaluators.split(",") if name.strip()]
    elsewhere = values["evaluator_results"]
    choice = Choice(
        evaluators=tuple(evaluators),
        together=values["together"],
        order=values["order"],
        near=values["near"],
        judge=None if elsewhere is None else partial(store.load_results, Path(os.path.expanduser(elsewhere))),
    )
    return metrics.named(values["metric"]), choice
