"""Every metric of every method in one table, from rows a document that are small enough to commit.

    python benchmarks/long_context_table.py make results docs/data/long_context.parquet   # from cells with token rows
    python benchmarks/long_context_table.py show docs/data/long_context.parquet           # docs/long_context.md

`show` prints, for a model and length, each metric with its 95 % interval over documents, the tokens that it counts, how
alike the metrics rank the methods (Spearman's rho), and paired ratios to one method.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from harness.errors import UserError
from harness.results import parquet, store
from harness.statistics import metrics
from harness.statistics.lines import tokens
from harness.statistics.metric import Choice, Metric
from harness.statistics.paired import paired
from harness.statistics.summary import summarize
from harness.statistics.text import number

COLUMNS: dict[str, tuple[str, Choice]] = {
    "perplexity": ("gain", Choice()),  # of the tokens that gain counts: the same ones as in short windows
    "LongPPL by dca": ("longppl", Choice(evaluators=("dca",))),
    "by yarn": ("longppl", Choice(evaluators=("yarn",))),
    "by rerope": ("longppl", Choice(evaluators=("rerope",))),
    "by dca or yarn": ("longppl", Choice()),
    "far copies, order 2": ("far_copies", Choice(order=2)),
    "order 3": ("far_copies", Choice(order=3)),
    "gain": ("gain", Choice()),
    "in context": ("in_context_score", Choice()),
}


load = cache(store.load_results)


def make(results: Path, output: Path, processes: int) -> None:
    """A metric's rows, one a document and cell, for every column; each process reads all tables."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        made = pool.map(partial(column_rows, results), COLUMNS) if processes > 1 else None
        parts = list(made if made is not None else map(partial(column_rows, results), COLUMNS))
    rows = pd.concat(parts, ignore_index=True)
    parquet.write_frame(output, rows[rows["protocol"] == "single_pass"].reset_index(drop=True))
    print(f"{len(rows)} rows: {output}")


def column_rows(results: Path, column: str) -> pd.DataFrame:
    """The rows of one column; none, and a line that says so, where the cells do not have it."""
    name, choice = COLUMNS[column]
    try:
        return metrics.named(name).rows(partial(load, results), choice).assign(column=column)
    except UserError as error:
        print(f"{column}: {error}")
        return pd.DataFrame()


def show(file: Path, baseline: str) -> None:
    """The tables in Markdown."""
    every = pd.read_parquet(file)
    for (model, dataset, ctx), rows in every.groupby(["model", "dataset", "ctx"]):
        documents = rows["document"].nunique()
        print(f"\n{model}, {dataset}, {tokens(float(ctx))} tokens, {documents} documents\n")
        parts = {name: rows[rows["column"] == name] for name in COLUMNS if (rows["column"] == name).any()}
        _values(parts)
        _ratios(parts, baseline)


def _metric(column: str) -> Metric:
    return metrics.named("perplexity" if column == "perplexity" else COLUMNS[column][0])


def _values(parts: dict[str, pd.DataFrame]) -> None:
    """Each metric of each method, and how alike they rank the methods."""
    summaries = {name: summarize(rows, metric=_metric(name)).set_index("method") for name, rows in parts.items()}
    values = pd.DataFrame({name: summary[_metric(name).name] for name, summary in summaries.items()})
    values = values.sort_values("perplexity")
    print("| method | " + " | ".join(parts) + " |\n|" + "---|" * (len(parts) + 1))
    for method in values.index:
        cells = [_cell(summaries[name].loc[method], _metric(name).name) for name in parts]
        print(f"| `{method}` | " + " | ".join(cells) + " |")
    short = [_short(name, one) for name, one in summaries.items()]
    print("| short windows | " + " | ".join(short) + " |")
    counts = [f"{one['num_scored'].max()} in {one['num_documents'].max()}" for one in summaries.values()]
    print("| tokens in documents | " + " | ".join(counts) + " |")
    if len(values) > 3:
        ranks = values.assign(gain=-values["gain"]).drop(columns="in context", errors="ignore").corr("spearman")
        print(f"\nSpearman's rho over {len(values)} methods:\n{ranks.round(2).to_string()}")


def _cell(row: pd.Series, name: str) -> str:
    return number(row[name]) + ("" if pd.isna(row["low"]) else f" [{number(row['low'])}, {number(row['high'])}]")


def _short(name: str, summary: pd.DataFrame) -> str:
    """What the same tokens cost in short windows."""
    if name == "gain":
        return "1"
    return number(summary["short_windows"].iloc[0]) if summary.get("short_windows", pd.Series()).notna().any() else ""


def _ratios(parts: dict[str, pd.DataFrame], baseline: str) -> None:
    """Each metric over that of one method, paired on the same documents."""
    tables = {name: paired(rows, baseline, metric=_metric(name)).set_index("method") for name, rows in parts.items()}
    print(f"\n| over `{baseline}` | " + " | ".join(parts) + " |\n|" + "---|" * (len(parts) + 1))
    for method in tables["perplexity"].sort_values("ratio").index:
        print(f"| `{method}` | " + " | ".join(_cell(table.loc[method], "ratio") for table in tables.values()) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="what", required=True)
    making = parts.add_parser("make")
    making.add_argument("results", type=Path)
    making.add_argument("output", type=Path)
    making.add_argument("--processes", type=int, default=1, help="columns at the same time (default: 1)")
    showing = parts.add_parser("show")
    showing.add_argument("file", type=Path)
    showing.add_argument("--baseline", default="dca", help="method that others are compared with (default: dca)")
    given = parser.parse_args()
    if given.what == "make":
        make(given.results, given.output, given.processes)
    else:
        show(given.file, given.baseline)


if __name__ == "__main__":
    main()
