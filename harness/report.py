"""``python -m harness.report``: everything about a results directory in one self-contained HTML page."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LINE = ["model", "dataset", "protocol", "curve"]
CELLS = [
    *LINE, "ctx", "perplexity", "low", "high", "num_documents", "num_windows", "num_scored", "bits_per_byte", "sampled",
    "dtype", "cell_id",
]  # fmt: skip
DIGITS = {"perplexity": 3, "low": 3, "high": 3, "bits_per_byte": 4, "ratio": 4, "slope": 4}


def main(arguments: list[str] | None = None) -> int:
    """Write the page; returns 0, or leaves with 2 and one line for a mistake."""
    options = parser().parse_args(arguments)
    from harness import cli

    try:
        text = build(options.results_dir, options.aggregate, options.confidence, options.baseline)
        _write(options.output, text)
    except UserError as error:
        cli.exit_with(error)
    print(f"report   {options.output}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m harness.report", description=(__doc__ or "").split("``: ")[1])
    made.add_argument("results_dir", nargs="?", type=Path, default=Path("results"), help="default: %(default)s")
    made.add_argument("--output", type=Path, default=Path("plots/report.html"), help="default: %(default)s")
    made.add_argument("--aggregate", default="token", help="how windows are averaged (default: %(default)s)")
    made.add_argument("--confidence", type=float, default=0.95, help="of the intervals (default: %(default)s)")
    made.add_argument("--baseline", default="none", help="line that ratios divide by (default: %(default)s)")
    return made


def build(results: Path, aggregate: str = "token", confidence: float = 0.95, baseline: str = "none") -> str:
    """The page as text. Raises UserError where there are no results or they cannot be averaged so."""
    from harness.figures import page
    from harness.results import store
    from harness.statistics import lines as curves
    from harness.statistics import summary as statistics

    rows = store.load_results(results)
    summary = curves.label(statistics.summarize(rows, aggregate, confidence))
    how = f"{aggregate} aggregate, {100 * confidence:g} % intervals over documents; click a column to sort by it."
    return page.page(
        "Perplexity against context length",
        page.section("Figures", *_figures(results, rows, summary, aggregate, confidence, baseline)),
        page.section("Cells", page.note(how), page.table(summary[CELLS], DIGITS)),
        page.section("Lines", *_lines(rows, aggregate, confidence)),
        page.section("Provenance", page.folded(_provenance(results, summary))),
    )


def _figures(
    results: Path, rows: "pd.DataFrame", summary: "pd.DataFrame", aggregate: str, confidence: float, baseline: str
) -> list[str]:
    """Every figure that these results allow, and in words why another one is not there."""
    from harness.figures import curves as figures
    from harness.figures import page
    from harness.results import store
    from harness.statistics import paired as contrasts
    from harness.statistics import summary as statistics

    drawings: dict[str, Callable[[], Figure]] = {
        "perplexity against context length": lambda: figures.perplexity(summary),
        f"perplexity over that of {baseline}": lambda: figures.ratio(
            contrasts.paired(rows, baseline, aggregate, confidence)
        ),
        "perplexity by method and length": lambda: figures.heatmap(summary),
        "loss against position": lambda: figures.position(
            statistics.loss_by_position(store.load_results(results, "positions"), confidence)
        ),
    }
    parts = []
    for caption, draw in drawings.items():
        try:
            parts.append(page.figure(draw(), caption))
        except UserError as error:
            parts.append(page.note(f"No figure of {caption}: {error}"))
    return parts


def _lines(rows: "pd.DataFrame", aggregate: str, confidence: float) -> list[str]:
    """Effective context length and slope of every line."""
    from harness.figures import page
    from harness.statistics import paired as contrasts

    kept = contrasts.effective_context_length(rows, aggregate=aggregate, confidence=confidence)
    parts = [
        page.note(
            "Effective context length: the last length before perplexity first exceeds the best at shorter lengths by "
            f"more than {100 * kept['tolerance'].iloc[0]:g} %; beyond: no measured length did."
        ),
        page.table(kept[[*LINE, "effective_ctx", "low", "high", "beyond", "shortest", "longest"]]),
    ]
    slopes = contrasts.slope(rows, aggregate, confidence)
    if not slopes.empty:
        columns = [*LINE, "slope", "low", "high", "shortest", "longest"]
        parts += [
            page.note("Slope: change of log perplexity in nats a doubling of the length, by least squares."),
            page.table(slopes[columns], {"slope": 4, "low": 4, "high": 4}),
        ]
    return parts


def _provenance(results: Path, summary: "pd.DataFrame") -> list[tuple[str, str]]:
    """What each file says of its making, titled by its cell."""
    from harness.results import store

    titles = {
        cell["cell_id"]: f"{cell['model']}, {cell['curve']}, ctx {cell['ctx']}, {cell['dataset']} ({cell['cell_id']})"
        for cell in summary.to_dict("records")
    }
    files = [results] if results.is_file() else sorted(results.rglob("*.windows.parquet"))
    return [
        (titles[cell_id], json.dumps(store.provenance(file), indent=2, sort_keys=True))
        for file in files
        for cell_id in sorted(set(store.load_results(file)["cell_id"]))
    ]


def _write(output: Path, text: str) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"the report cannot be written to {str(output)!r}: {error.strerror or error}") from error


if __name__ == "__main__":
    raise SystemExit(main())
