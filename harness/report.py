"""``python -m harness.report``: everything about a results directory in one self-contained HTML page."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config.metric import add_metric, chosen_metric
from harness.config.options import Parser
from harness.config.selection import add_selection, chosen_selection
from harness.errors import UserError
from harness.storage.files import storage, write_bytes

if TYPE_CHECKING:
    import pandas as pd

    from harness.figures.source import Source
    from harness.results.selection import Selection
    from harness.statistics.metric import Choice, Metric
    from harness.statistics.summary import Averaging

LINE = ["model", "dataset", "dataset_source", "text", "protocol", "setting", "curve"]
APART = ("text", "setting")  # what tells data sets and protocols of one name apart, in words: where something has to
AROUND = [
    "low", "high", "k_max", "num_documents", "num_windows", "num_scored", "bits_per_byte",
    "byte_perplexity", "word_perplexity", "shorter", "note", "short_windows", "sampled", "dtype", "cell_id",
]  # fmt: skip
DIGITS = {
    "perplexity": 3, "low": 3, "high": 3, "bits_per_byte": 4, "byte_perplexity": 4, "word_perplexity": 2,
    "short_windows": 3, "ratio": 4, "slope": 4,
}  # fmt: skip

DESCRIPTION = """Everything about a results directory in one self-contained HTML page.

  python -m harness.report                                                  results/ to plots/report.html
  python -m harness.report results --output report.html --last              the cells of the last command
  python -m harness.report results --metric bits_per_byte --baseline yarn   by another metric and line"""


def main(arguments: list[str] | None = None) -> int:
    """Write the page; returns 0, or leaves with 2 and one line for a mistake."""
    options = parser().parse_args(arguments)
    from harness import cli, console

    with console.guarded():
        try:
            text = _page(options)
            _write(options.output, text)
        except UserError as error:
            cli.exit_with(error)
        print(f"report   {options.output}")
        return 0


def _page(options: argparse.Namespace) -> str:
    from harness.statistics.summary import Averaging

    averaging = Averaging(options.aggregate, options.confidence)
    selection = chosen_selection(options.where, options.last)
    return build(options.results_dir, averaging, options.baseline, *chosen_metric(vars(options)), selection)


def parser() -> Parser:
    """The command line."""
    made = Parser(
        prog="python -m harness.report", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("results_dir", nargs="?", type=Path, default=Path("results"), help="default: %(default)s")
    made.add_argument("--output", type=Path, default=Path("plots/report.html"), help="default: %(default)s")
    add_selection(made, "only the cells of the last command")
    add_metric(made)
    made.add_argument("--aggregate", default="token", help="how windows are averaged (default: %(default)s)")
    made.add_argument("--confidence", type=float, default=0.95, help="of the intervals (default: %(default)s)")
    made.add_argument("--baseline", default="none", help="line that ratios divide by (default: %(default)s)")
    return made


def build(
    results: Path,
    averaging: "Averaging | None" = None,
    baseline: str = "none",
    metric: "Metric | None" = None,
    choice: "Choice | None" = None,
    selection: "Selection | None" = None,
) -> str:
    """The page as text, experiment by experiment. Raises UserError where there are no results."""
    from harness.figures import page
    from harness.figures.source import Source
    from harness.results.selection import EVERYTHING, around, fitting, load
    from harness.statistics.metric import PERPLEXITY, PLAIN
    from harness.statistics.provenance import provenance_texts
    from harness.statistics.summary import DEFAULT

    selection = selection or EVERYTHING
    read, beside = (cache(partial(load, results, selection=one)) for one in (selection, around(selection)))
    metric, choice = metric or PERPLEXITY, choice or PLAIN
    choice = replace(choice, judge=choice.judge or beside)  # the cells that choose may be another experiment's
    shown = partial(fitting, results=results, table="windows", selection=selection)
    others = _experiments(beside)
    parts, errors = [], []
    for name, loader in _experiments(read).items():
        source = Source(loader, averaging or DEFAULT, baseline, metric, choice, others[name], shown)
        try:
            parts.append((name, _experiment(source.by_needles())))
        except UserError as error:  # of one experiment among others, which have the metric
            parts.append((name, [page.note(f"No {metric.title}: {error}")]))
            errors.append(error)
    if len(errors) == len(parts):
        raise errors[0]
    return page.page(
        f"{metric.title.capitalize()} against context length",
        *page.chapters(parts),
        page.section("Provenance", page.folded(provenance_texts(results, read("windows")))),
    )


def _experiments(read: "Callable[[str], pd.DataFrame]") -> "dict[str, Callable[[str], pd.DataFrame]]":
    """What reads the rows of each experiment, by its name; cells of none come last."""
    named = read("windows")[["cell_id", "experiment"]].drop_duplicates()
    ids = {str(name): set(cells["cell_id"]) for name, cells in named.groupby("experiment") if name}
    alone = set(named["cell_id"][named["experiment"].fillna("") == ""])
    return {name: partial(_of_cells, read, cells) for name, cells in (ids | {"no experiment": alone}).items() if cells}


def _of_cells(read: "Callable[[str], pd.DataFrame]", cells: set[str], table: str) -> "pd.DataFrame":
    rows = read(table)
    return rows[rows["cell_id"].isin(cells)].reset_index(drop=True)


def _experiment(source: "Source") -> list[str]:
    """Figures, cells and lines of one experiment."""
    from harness.figures import page
    from harness.statistics.lines import label
    from harness.statistics.text import unit

    summary = label(source.summary)
    many, known = f"{unit(summary)}s", summary["low"].notna().any()
    share = f"{100 * source.averaging.confidence:g} %"
    intervals = f"{share} intervals over {many}" if known else f"too few {many} for intervals"
    how = f"{source.averaging.aggregate} aggregate, {intervals}; click a column to sort by it."
    lines = _lines(source)
    digits = DIGITS | {source.metric.name: 3}
    if source.metric.scale == "difference":  # of small numbers
        digits |= dict.fromkeys((source.metric.name, "low", "high"), 6)
    return [
        page.part("Figures", *_figures(source)),
        page.part("Cells", page.note(how), page.table(summary[_columns(summary)], digits)),
        *_divergences(source),
        *([page.part("Lines", *lines)] if lines else []),
    ]


def _divergences(source: "Source") -> list[str]:
    """How far the cells that have a base lie from it; nothing where none has."""
    from harness.figures import page
    from harness.statistics.divergence_text import divergence_text

    if not (source.rows["base"].fillna("") != "").any():
        return []
    return [page.part("KL to a base", page.preformatted(divergence_text(source.divergences, source.averaging)))]


def _columns(summary: "pd.DataFrame") -> list[str]:
    """Of the table of cells: the metric's value behind the length, and what stands around it."""
    metric = summary["metric"].iloc[0]
    around = [name for name in AROUND if name in summary and name != metric]
    return [*_line(summary), "ctx", metric, *around]


def _line(table: "pd.DataFrame") -> list[str]:
    return [name for name in LINE if name not in APART or table[name].any()]


def _figures(source: "Source") -> list[str]:
    """Every figure that these results allow, and in words why another one is not there."""
    from harness.figures import FIGURES, page

    parts = []
    for entry in FIGURES.values():
        caption = entry.caption.format(metric=source.metric.title, baseline=source.baseline)
        try:
            parts.append(page.figure(entry.figure(source), caption))
        except UserError as error:
            parts.append(page.note(f"No figure of {caption}: {error}"))
    return parts


def _lines(source: "Source") -> list[str]:
    """Effective context length and slope of every line; nothing where all cells hide needles."""
    from harness.figures import page
    from harness.statistics.context_length import effective_context_length, slope
    from harness.statistics.lines import PANEL, label

    if source.texts.empty:
        return []
    told = label(source.summary)[[*PANEL, *APART]].drop_duplicates(PANEL)
    kept = effective_context_length(source.texts, averaging=source.averaging).merge(told, on=PANEL)
    parts = [
        page.note(
            "Effective context length: the last length before perplexity first exceeds the best at shorter lengths by "
            f"more than {100 * kept['tolerance'].iloc[0]:g} %; beyond: no measured length did."
        ),
        page.table(kept[[*_line(kept), "effective_ctx", "low", "high", "beyond", "shortest", "longest"]]),
    ]
    slopes = slope(source.texts, source.averaging)
    if not slopes.empty:
        slopes = slopes.merge(told, on=PANEL)
        columns = [*_line(slopes), "slope", "low", "high", "shortest", "longest"]
        parts += [
            page.note("Slope: change of log perplexity in nats a doubling of the length, by least squares."),
            page.table(slopes[columns], {"slope": 4, "low": 4, "high": 4}),
        ]
    return parts


def _write(output: Path, text: str) -> None:
    with storage(output, "the report"):
        if output.is_dir():
            raise UserError(f"the report cannot be written to {str(output)!r}: it is a directory.")
    write_bytes(output, text.encode(errors="backslashreplace"), what="the report")


if __name__ == "__main__":
    raise SystemExit(main())
