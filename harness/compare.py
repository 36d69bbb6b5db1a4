"""``python -m harness.compare BASELINE CANDIDATE``: did a change make anything worse?

Exit code 0: no cell got worse by more than the tolerance; 1: some did; 2: the input cannot be compared.
"""

import argparse
import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config.metric import add_metric, chosen_metric, metric_rows
from harness.config.options import Parser
from harness.config.selection import add_selection, chosen_selection
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.statistics.before_after import Comparison

DESCRIPTION = """Compare two results directories cell by cell, on the same documents.

  python -m harness.compare results/before results/after                    did anything get worse?
  python -m harness.compare results/baseline results --tolerance 0.01       by more than 1 %?
  python -m harness.compare before after --format markdown --where ctx=4096  some cells, as a table to paste"""


def main(arguments: list[str] | None = None) -> int:
    """Compare two results directories, print the table, draw it, and return the exit code."""
    options = parser().parse_args(arguments)
    from harness import cli, console

    with console.guarded():
        try:
            return run(options)
        except UserError as error:
            cli.exit_with(error)
            raise AssertionError("unreachable") from error


def run(options: argparse.Namespace) -> int:
    """The comparison that the options ask for; its exit code."""
    from harness.figures.before_after import changes
    from harness.figures.files import save
    from harness.results.selection import around, load
    from harness.statistics.before_after import compare
    from harness.statistics.summary import Averaging

    averaging = Averaging(options.aggregate, options.confidence)
    metric, choice = chosen_metric(vars(options))
    sides = [
        (options.baseline, chosen_selection(options.where)),
        (options.candidate, chosen_selection(options.where, options.last)),
    ]
    tables = [cache(partial(load, path, selection=around(selection))) for path, selection in sides]
    choice = replace(choice, judge=choice.judge or tables[0])  # the same key tokens before and after
    rows = [metric_rows(metric, choice, *side, own) for side, own in zip(sides, tables, strict=True)]
    result = compare(rows[0], rows[1], options.tolerance, averaging, metric)
    print(FORMATS[options.format](result))
    incomplete = options.complete and bool(result.missing["candidate"])
    if options.plots_dir is not None and not result.cells.empty:
        for path in save(changes(result.cells, result.tolerance, metric), options.plots_dir / "compare"):
            if options.format == "table":
                print(f"figure   {path}")
    return result.exit_code or (2 if incomplete else 0)


def parser() -> Parser:
    """The command line."""
    made = Parser(
        prog="python -m harness.compare",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit code 0: nothing got worse; 1: a cell got worse, or scored other tokens; 2: unusable input.",
    )
    made.add_argument("baseline", type=Path, help="results directory before the change")
    made.add_argument("candidate", type=Path, help="results directory after the change")
    made.add_argument("--format", choices=sorted(FORMATS), default="table", help="of the table (default: %(default)s)")
    made.add_argument(
        "--tolerance", type=float, default=0.001,
        help="how much worse a value may be, relative to it; a difference as it is (default: %(default)s)",
    )  # fmt: skip
    add_selection(made, "of the candidate, only the cells of the last command into it")
    add_metric(made)
    made.add_argument("--aggregate", default="token", help="how windows are averaged (default: %(default)s)")
    made.add_argument("--confidence", type=float, default=0.95, help="of the paired intervals (default: %(default)s)")
    made.add_argument(
        "--complete", action="store_true", help="exit code 2, too, where a cell of the baseline has no counterpart"
    )
    made.add_argument("--plots-dir", type=Path, help="draw the ratios there (compare.svg, compare.png)")
    return made


def _head(result: "Comparison") -> list[str]:
    """The names of the columns."""
    compared = "ratio" if result.metric.neutral else "difference"
    return [compared + " [interval]" if name == "ratio" else name for name in HEAD]


def _rows(result: "Comparison") -> list[list[str]]:
    from harness.statistics.lines import tokens
    from harness.statistics.text import number

    lines = []
    for cell in result.cells.to_dict("records"):
        limits = "" if cell["low"] != cell["low"] else f" [{cell['low']:.4f}, {cell['high']:.4f}]"
        counted = cell["num_documents"] == cell["num_documents"]
        wins = f"{cell['num_improved']:g}/{cell['num_documents']:g}" if counted else ""
        lines.append(
            [
                cell["model"], cell["curve"], tokens(cell["ctx"]), cell["protocol"], cell["dataset"],
                number(cell["before"]), number(cell["after"]), f"{cell['ratio']:.4f}{limits}", wins,
                cell["verdict"] + (f" ({cell['note']})" if cell["note"] else ""),
            ]
        )  # fmt: skip
    return lines


HEAD = [
    "model", "method", "ctx", "protocol", "dataset", "before", "after", "ratio", "improved", "verdict",
]  # fmt: skip


def _remarks(result: "Comparison") -> list[str]:
    """What the table cannot show: refused and missing cells, and the verdict over all."""
    lines = [f"refused: {reason}" for reason in result.refused]
    for side, cells in result.missing.items():
        lines += [f"missing in the {side}: {cell}" for cell in cells]
    by = f"{100 * result.tolerance:g} %" if result.metric.neutral else f"{result.tolerance:g}"
    lines.append(
        f"{len(result.cells)} cells compared, {result.faults} worse than {by} or different, "
        f"{len(result.refused)} refused"
    )
    return lines


def table(result: "Comparison") -> str:
    """The comparison as aligned text."""
    lines = [_head(result), *_rows(result)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEAD))]
    text = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, "", *_remarks(result)])


def markdown(result: "Comparison") -> str:
    """The comparison as a Markdown table, for a job summary."""
    lines = [_head(result), ["---"] * len(HEAD), *_rows(result)]
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", *(f"- {r}" for r in _remarks(result))])


def as_json(result: "Comparison") -> str:
    """The comparison for other programs; values that do not exist are null."""
    cells = json.loads(result.cells.to_json(orient="records", double_precision=15))
    return json.dumps(
        {
            "tolerance": result.tolerance,
            "exit_code": result.exit_code,
            "cells": cells,
            "refused": result.refused,
            "missing": result.missing,
        },
        indent=2,
    )


FORMATS = {"table": table, "markdown": markdown, "json": as_json}

if __name__ == "__main__":
    raise SystemExit(main())
