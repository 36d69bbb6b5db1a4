"""The table that a command prints, in the format that was asked for: to read, to paste, or for another program."""

import json

import numpy as np
import pandas as pd

from harness.statistics.format_names import Format
from harness.statistics.lines import describe, panels, tokens
from harness.statistics.metric import Metric
from harness.statistics.metrics import METRICS
from harness.statistics.needles import FOUND
from harness.statistics.summary import Line
from harness.statistics.text import counted, documents, number, unit

BEST = "*"


def decision_text(table: pd.DataFrame, markdown: bool = False) -> str:
    """Method x length: perplexity (or another metric) [low, high], the best marked, ratios to the baseline below.

    table: that of `decide`. One block a model, data set and protocol; `markdown`: with tables of that kind.
    """
    return "\n\n".join(_block(rows, markdown) for _, rows in panels(table, "ctx", "curve"))


def _block(rows: pd.DataFrame, markdown: bool) -> str:
    metric = METRICS[rows["metric"].iloc[0]]
    named = describe(rows, ["model", "dataset", "dataset_source", "dataset_fingerprint", "protocol", "protocol_params"])
    head = f"{metric.title}: {named}"
    with_counts = rows["num_documents"].nunique() > 1
    values = [_cell(row, with_counts) for row in rows.to_dict("records")]
    effective = _effective(rows)
    parts = [f"**{head}**" if markdown else head, f"({', '.join(_notes(rows))})"]
    parts = (
        [*parts, "", _grid(rows, values, markdown, effective), ""]
        if markdown
        else [*parts, _grid(rows, values, markdown, effective)]
    )
    under = [*_legend(rows, metric, effective is not None), *_ratios(rows, metric, markdown), *_reach(rows, markdown)]
    return "\n".join([*parts, *under])


def _legend(rows: pd.DataFrame, metric: Metric, effective: bool) -> list[str]:
    lines = []
    if rows["is_best"].any():
        best = "highest" if metric.higher_is_better else "lowest"
        lines.append(f"{BEST} {best} at its length: the paired interval against every other line says so")
    if effective:
        lines.append(f"effective: the last length before it rises by more than {100 * rows['tolerance'].iloc[0]:g} %")
    return lines


def _ratios(rows: pd.DataFrame, metric: Metric, markdown: bool) -> list[str]:
    """Against the baseline, where it is there."""
    compared = rows[rows["ratio"].notna()]
    if compared.empty:
        return []
    word = "difference" if metric.scale == "difference" else "ratio"
    grid = _grid(compared, [_ratio(row) for row in compared.to_dict("records")], markdown)
    between = [""] if markdown else []
    return ["", f"{word} to {rows['baseline'].iloc[0]}, paired on the same {unit(rows)}s:", *between, grid]


def _reach(rows: pd.DataFrame, markdown: bool) -> list[str]:
    """Of needle accuracy."""
    if "k_max" not in rows:
        return []
    farthest = [
        tokens(row["k_max"]) + (f" (and {tokens(row['k_farthest'])})" if row["k_farthest"] > row["k_max"] else "")
        for row in rows.to_dict("records")
    ]
    head = f"k_max, tokens back from the end up to which at least {100 * FOUND:g} % of the needles are found:"
    return ["", head, *([""] if markdown else []), _grid(rows, farthest, markdown)]


def _notes(rows: pd.DataFrame) -> list[str]:
    counts = sorted(rows["num_documents"].unique())
    notes = [f"{rows['aggregate'].iloc[0]} aggregate"]
    if rows["low"].notna().any():
        notes.append(f"{100 * rows['confidence'].iloc[0]:g} % intervals over {unit(rows)}s")
    notes.append(documents(counts[0], rows) if len(counts) == 1 else f"{unit(rows)}s in parentheses")
    if "shorter" in rows and rows["shorter"].notna().any():
        notes.append("those shorter than a window whole")
    if rows["sampled"].any():
        notes.append("sampled windows")
    return [*notes, *counted(rows)]


def _grid(rows: pd.DataFrame, text: list[str], markdown: bool, beside: pd.Series | None = None) -> str:
    """Methods down and lengths across, or the other way round where there are many; `beside`: one more, by method."""
    wide = rows.assign(text=text).pivot(index="curve", columns="ctx", values="text").fillna("")
    order = sorted(wide.index, key=lambda name: (name != "none", name))
    wide = wide.loc[order].rename(columns=tokens)
    if beside is not None:
        wide = wide.assign(effective=beside)
    upright = wide.shape[1] <= 9
    wide = (wide if upright else wide.T).rename_axis(index="method" if upright else "ctx", columns=None)
    return _markdown(wide) if markdown else wide.to_string()


def _markdown(wide: pd.DataFrame) -> str:
    lines = [[wide.index.name, *wide.columns], ["---"] * (1 + wide.shape[1]), *wide.reset_index().to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(word).replace("|", "\\|") for word in line) + " |" for line in lines)


def _cell(row: Line, with_count: bool) -> str:
    limits = "" if np.isnan(row["low"]) else f" [{number(row['low'])}, {number(row['high'])}]"
    count = f" ({row['num_documents']})" if with_count else ""
    best = f" {BEST}" if row["is_best"] else ""
    return f"{number(row[row['metric']])}{limits}{count}{best}"


def _ratio(row: Line) -> str:
    limits = "" if np.isnan(row["ratio_low"]) else f" [{row['ratio_low']:.4f}, {row['ratio_high']:.4f}]"
    return f"{row['ratio']:.4f}{limits}"


def _effective(rows: pd.DataFrame) -> pd.Series | None:
    """The effective context length of every line, where there are several lengths and it is known of any."""
    if rows["ctx"].nunique() < 2 or rows["effective_ctx"].isna().all():
        return None
    return rows.drop_duplicates("curve").set_index("curve").apply(_effective_length, axis=1)


def _effective_length(row: pd.Series) -> str:
    if np.isnan(row["effective_ctx"]):
        return "-"
    limits = (
        "" if np.isnan(row["effective_low"]) else f" [{tokens(row['effective_low'])}, {tokens(row['effective_high'])}]"
    )
    return f"{'at least ' if row['effective_beyond'] else ''}{tokens(row['effective_ctx'])}{limits}"


def formatted(table: pd.DataFrame, name: Format) -> str:
    """The table of `decide` as text, Markdown, CSV or JSON (a list of records; what is not known is null or empty)."""
    if name == "csv":
        return table.to_csv(index=False).rstrip("\n")
    if name == "json":
        return json.dumps(json.loads(table.to_json(orient="records", double_precision=15)), indent=2)
    return decision_text(table, markdown=name == "markdown")
