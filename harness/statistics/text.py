"""Tables of perplexities and lengths as text to print."""

import numpy as np
import pandas as pd

from harness.statistics.lines import describe, label, panels, tokens
from harness.statistics.metric import NOTE
from harness.statistics.metrics import METRICS
from harness.statistics.summary import Line


def summary_table(summary: pd.DataFrame) -> str:
    """Method x length: perplexity (or another metric) [low, high] a cell, one block a model, data set and protocol.

    summary: the table of `summarize`.
    """
    blocks = []
    for _, rows in panels(label(summary), "ctx", "curve"):
        named = describe(
            rows, ["model", "dataset", "dataset_source", "dataset_fingerprint", "protocol", "protocol_params"]
        )
        counts = sorted(rows["num_documents"].unique())
        note = ", ".join(
            [
                f"{rows['aggregate'].iloc[0]} aggregate",
                *(
                    [f"{100 * rows['confidence'].iloc[0]:g} % intervals over documents"]
                    if rows["low"].notna().any()
                    else []
                ),
                _documents(counts[0]) if len(counts) == 1 else "documents in parentheses",
                *(["those shorter than a window whole"] if "shorter" in rows and rows["shorter"].notna().any() else []),
                *(["sampled windows"] if rows["sampled"].any() else []),
                *counted(rows),
            ]
        )
        blocks.append(f"{METRICS[rows['metric'].iloc[0]].title}: {named}\n({note})\n{_grid(rows, len(counts) > 1)}")
    return "\n\n".join(blocks)


def _documents(count: int) -> str:
    return "1 document" if count == 1 else f"{count} documents"


def _grid(rows: pd.DataFrame, with_counts: bool) -> str:
    """Methods down and lengths across, or the other way round where there are many lengths."""
    text = [_cell(row, with_counts) for row in rows.to_dict("records")]
    wide = rows.assign(text=text).pivot(index="curve", columns="ctx", values="text").fillna("")
    order = sorted(wide.index, key=lambda name: (name != "none", name))
    wide = wide.loc[order].rename(columns=tokens).rename_axis(index="method", columns=None)
    return (wide if wide.shape[1] <= 8 else wide.T.rename_axis(index="ctx", columns=None)).to_string()


def _cell(row: Line, with_count: bool) -> str:
    limits = "" if np.isnan(row["low"]) else f" [{number(row['low'])}, {number(row['high'])}]"
    count = f" ({row['num_documents']})" if with_count else ""
    return f"{number(row[row['metric']])}{limits}{count}"


def effective_table(lengths: pd.DataFrame) -> str:
    """Model, line, effective context length with its limits.

    lengths: the table of `effective_context_length`.
    """
    lines = []
    for row in lengths.to_dict("records"):
        limits = "" if np.isnan(row["low"]) else f" [{tokens(row['low'])}, {tokens(row['high'])}]"
        at_least = "at least " if row["beyond"] else ""
        lines.append([row["model"], row["curve"], f"{at_least}{tokens(row['effective_ctx'])}{limits}"])
    title = f"effective context length (perplexity within {100 * lengths['tolerance'].iloc[0]:g} % of the best before):"
    return title + "\n" + pd.DataFrame(lines).to_string(index=False, header=False)


def counted(table: pd.DataFrame) -> list[str]:
    """What a metric counts, and how many of them a cell has: `key tokens by dca: 27 at 4k`; empty: it says nothing."""
    if NOTE not in table:
        return []
    phrases = []
    for note, rows in table.groupby(NOTE, sort=True):
        counts = []
        for length in sorted(rows["ctx"].unique()):
            ends = rows.loc[rows["ctx"] == length, "num_scored"].agg(["min", "max"]).unique()
            counts.append(f"{' to '.join(map(str, ends))} at {tokens(length)}")
        phrases.append(f"{note}: {', '.join(counts)}")
    return phrases


def averaging_phrase(table: pd.DataFrame, intervals: bool = True) -> str:
    """`token aggregate, 95 % intervals over 8 documents`, as far as all cells agree."""
    counts = sorted(table["num_documents"].unique())
    documents = _documents(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]} documents"
    weighting = ", ".join(str(name).replace("_", " ") for name in table["aggregate"].unique())
    sampled = ", sampled windows" if table["sampled"].any() else ""
    if "shorter" in table and table["shorter"].notna().any():
        sampled = f", those shorter than a window whole{sampled}"
    sampled += "".join(f", {phrase}" for phrase in counted(table))
    if not intervals:
        return f"{weighting} aggregate, {documents}{sampled}"
    if table["low"].isna().all():
        return f"{weighting} aggregate, {documents}, too few for intervals{sampled}"
    return f"{weighting} aggregate, {100 * table['confidence'].iloc[0]:g} % intervals over {documents}{sampled}"


def number(value: float) -> str:
    """A perplexity with as many digits as anyone reads: 3.142, 29.87, 358.2, 12345."""
    if np.isnan(value):
        return "-"
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.3g}"
